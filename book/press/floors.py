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
    "files",
    "tokenizer",
    "encoder",
    "data",
    "model",
    "schedule",
    "evaluate",
    "train",
    "pretrain",
    "bert",
    "experiment.settings",
    "experiment.folder",
    "experiment.checkpoint",
    "experiment.job",
    "experiment.fit",
    "experiment.search",
    "experiment.report",
    "experiment.recipe",
    "cli",
)

# The folders inside the package, and what each is about.
SUBPACKAGES = {"experiment": "What makes a run repeatable: settings, folders, checkpoints, reports, recipes."}


def module_path(module: str) -> str:
    """`experiment.settings` -> `minitransformer/experiment/settings.py`."""
    return f"{PACKAGE}/{module.replace('.', '/')}.py"


def tests_path(module: str) -> str:
    """`experiment.settings` -> `tests/test_experiment_settings.py`."""
    return f"{TESTS}/test_{module.replace('.', '_')}.py"


# How many tasks the plan sets for each day: day 1 has T1.1, T1.2 and T1.3.
TASKS = {1: 3, 2: 3, 3: 3, 4: 4, 5: 3, 6: 3, 7: 2, 8: 3, 9: 2, 10: 3, 11: 3, 12: 4}
