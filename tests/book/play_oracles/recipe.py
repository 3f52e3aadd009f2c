"""Day 12's machine: what `reproduce` itself does, with a training that takes no time.

The stages, the refusals and the counting of readings are the package's; only `fit`, the drawings and the weights are stood in for.
"""

import json
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest import mock

from minitransformer.experiment import recipe
from minitransformer.experiment.checkpoint import _same_run
from minitransformer.experiment.folder import _record_evaluation, last_validation, read_evaluations

SEEDS = ["seed0", "seed1", "seed2"]
STAGES = ["encoder", *SEEDS, "test", "model"]
ACCURACIES = {"seed0": 0.9, "seed1": 0.94, "seed2": 0.92}


def start() -> dict:
    return {"seeds": SEEDS, "stages": STAGES, "accuracies": ACCURACIES}


class Machine:
    """A folder, and the buttons of the widget."""

    def __init__(self, folder: Path):
        self.folder, self.rate, self.dies = folder, 0, ""

    def fit(self, stage: str, settings: dict) -> Path:
        run = self.folder / stage
        run.mkdir(exist_ok=True)
        if (began := run / "began.json").exists():
            _same_run(run, json.loads(began.read_text()), settings)
        began.write_text(json.dumps(settings))
        if self.dies == stage and not (run / "run.json").exists():
            raise KeyboardInterrupt
        if not (run / "run.json").exists():
            found = {"n": 872, "accuracy": ACCURACIES.get(stage, 0.0), "loss": 1.0}
            (run / "metrics.jsonl").write_text(json.dumps({"kind": "epoch", "validation": found}) + "\n")
            (run / "run.json").write_text('{"class": "read"}')
        return run

    def read_test(self, run: Path, split: str) -> None:
        answers = [dict.fromkeys(("positive", "label", "correct", "words", "negation", "contrast"), 1)]
        _record_evaluation(run, split, answers, last_validation(run))

    def go_on(self, dies: str = "") -> None:
        self.dies = dies
        stand_ins = {
            "_make_encoder": lambda plan, folder: self.fit("encoder", {}),
            "_run_of_seed": lambda plan, folder, seed: self.fit(f"seed{seed}", {"rate": self.rate}),
            "evaluate_split": self.read_test,
            "write_report": lambda run: None,
            "ship": lambda run, folder: (folder.mkdir(), (folder / "config.json").touch()),
            "_write_summary": lambda folder, runs, chosen: folder,
        }
        plan = recipe.RecipeConfig("toy", "toy.yaml", [0, 1, 2], pretrain="reading.yaml")
        with ExitStack() as stack:
            for name, stand_in in stand_ins.items():
                stack.enter_context(mock.patch.object(recipe, name, stand_in))
            # killed, or refused: what is there is counted
            stack.enter_context(suppress(KeyboardInterrupt, ValueError))
            recipe.reproduce(plan, self.folder)

    def change(self) -> None:
        self.rate = 1 - self.rate

    def peek(self) -> None:
        for run in (self.folder / seed for seed in SEEDS):
            if (run / "run.json").exists() and "test" not in read_evaluations(run):
                self.read_test(run, "test")

    def counts(self) -> dict:
        runs = [self.folder / seed for seed in SEEDS if (self.folder / seed / "run.json").exists()]
        tests = [read_evaluations(run)["test"] for run in runs if "test" in read_evaluations(run)]
        shipped = (self.folder / "model" / "config.json").exists()
        encoder = (self.folder / "encoder" / "run.json").exists()
        finished = encoder + len(runs) + 2 * shipped  # the recipe's own reading, then the model
        readings = sum(test["readings"] for test in tests)
        return {"finished": finished, "all": len(STAGES), "readings": readings}


def states() -> list:
    run, peek = ("Go on to the end", "click"), ("Peek at the test split with every finished seed", "click")
    kill, change = ("Run, and kill it there", "click"), ("Change the learning rate", "click")
    early = ("Kill it in", "encoder")
    buttons = {run: "go_on", peek: "peek", change: "change"}
    found = []
    for steps in (
        [],
        [run],
        [run, run],
        [kill],
        [kill, run],
        [kill, change, run],
        [kill, change, change, run],
        [run, peek],
        [run, peek, peek],
        [run, peek, run],
        [kill, peek, run],  # seed 0 has been read, and seed 1 is better: refused
        [early, kill, change, run],  # no seed has begun: nothing to refuse
        [early, kill, kill, run],
        [change, run],
    ):
        with tempfile.TemporaryDirectory() as folder:
            machine, dies = Machine(Path(folder)), "seed1"
            for step in steps:
                if step == early:
                    dies = "encoder"
                elif step == kill:
                    # the widget kills a stage once; a second time it goes on from the checkpoint
                    again = (Path(folder) / dies / "began.json").exists()
                    machine.go_on("" if again else dies)
                else:
                    getattr(machine, buttons[step])()
            found.append((steps, machine.counts()))
    return found
