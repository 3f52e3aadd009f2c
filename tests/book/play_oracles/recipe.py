"""Day 12's machine: what the recipe of `minitransformer.experiment.recipe` does in each case.

Which seed is chosen is `best_run`'s choice; the counts are those that Day 12 shows on real folders.
"""

SEEDS = ["seed0", "seed1", "seed2"]
STAGES = ["encoder", *SEEDS, "test", "model"]
ACCURACIES = {"seed0": 0.9, "seed1": 0.94, "seed2": 0.92}


def start() -> dict:
    return {"seeds": SEEDS, "stages": STAGES, "accuracies": ACCURACIES}


def answer(finished: int, readings: int) -> dict:
    return {"finished": finished, "all": len(STAGES), "readings": readings}


def states() -> list:
    run, kill = ("Go on to the end", "click"), ("Run, and kill it there", "click")
    change = ("Change the learning rate", "click")
    peek = ("Peek at the test split with every finished seed", "click")
    return [
        ([], answer(0, 0)),
        ([run], answer(6, 1)),
        ([run, run], answer(6, 1)),
        ([kill], answer(2, 0)),
        ([kill, run], answer(6, 1)),
        ([kill, change, run], answer(2, 0)),
        ([kill, change, change, run], answer(6, 1)),
        ([run, peek], answer(6, 3)),
        ([run, peek, peek], answer(6, 3)),
    ]
