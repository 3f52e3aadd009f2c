"""What the house looks like: the modules from the ground up, and the tasks that the plan sets for each day."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"

PACKAGE = "minitransformer"
TESTS = "tests"

# From the ground up: a module imports only what stands before it.
FLOORS = (
    "linear",
    "attention",
    "layers",
    "encoder",
    "model",
    "tokenizer",
    "data",
    "schedule",
    "evaluate",
    "config",
    "runs",
    "train",
    "pretrain",
    "selftrain",
    "report",
    "bert",
    "recipe",
    "cli",
)

# How many tasks the plan sets for each day: day 1 has T1.1, T1.2 and T1.3.
TASKS = {1: 3, 2: 3, 3: 3, 4: 4, 5: 3, 6: 3, 7: 2, 8: 3, 9: 2, 10: 3, 11: 3, 12: 4}
