"""Day 7's equal variants: the winner's mean over drawn searches, by torch."""

import numpy as np
import torch

import book
from minitransformer.experiment.folder import last_validation, read_run_record

TRUTH, VARIANTS, SEEDS = 80.0, 8, 3


def spread() -> float:
    """The standard deviation over seeds in the recorded search, in points: variances pooled over its variants."""
    found: dict[str, list[float]] = {}
    for record in book.path("runs/search").glob("*/run.json"):
        accuracy = last_validation(record.parent).accuracy
        found.setdefault(read_run_record(record.parent)["name"], []).append(100 * accuracy)
    return torch.tensor(list(found.values()), dtype=torch.float64).var(dim=1).mean().sqrt().item()


def searches() -> torch.Tensor:
    """200 searches of eight equal variants with three seeds each, in per cent: scattered as the recorded seeds are."""
    drawn = np.random.default_rng(7).normal(TRUTH, spread(), (200, VARIANTS, SEEDS))
    return torch.tensor(drawn).round(decimals=3)


def start() -> dict:
    return {"truth": TRUTH, "searches": searches(), "variants": VARIANTS, "seeds": SEEDS}


def answer(done: int, variants: int = VARIANTS, seeds: int = SEEDS) -> dict[str, float]:
    means = searches()[:done, :variants, :seeds].mean(-1)
    winners = means.amax(-1)
    return {
        "done": done,
        "best": int(means[-1].argmax()) + 1,
        "last": winners[-1].item(),
        "mean": winners.mean().item(),
        "curse": winners.mean().item() - TRUTH,
    }


def states() -> list:
    more = [("Twenty searches more", "click")] * 3
    return [
        ([], answer(1)),
        ([("Search again", "click")], answer(2)),
        (more, answer(61)),
        ([*more, ("Seeds of each", 1)], answer(61, seeds=1)),
        ([*more, ("Variants that are compared", 1)], answer(61, variants=1)),
    ]
