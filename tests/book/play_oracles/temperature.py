"""Day 10's temperature: the package's own bins and error, of the shipped model's validation answers."""

import json

import torch

from book.press.floors import ROOT
from minitransformer.evaluate import calibration_bins, calibration_error


def start() -> dict:
    lines = (ROOT / "book/runs/shipped/answers_validation.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    positive = torch.tensor([a["positive"] for a in answers], dtype=torch.float64)
    sure = torch.maximum(positive, 1 - positive).clamp(max=1 - 1e-6)
    return {"logits": sure.logit().round(decimals=4), "correct": [int(a["correct"]) for a in answers]}


def answer(heat: float = 1.0, bins: int = 10) -> dict[str, float]:
    given = start()
    right = torch.tensor(given["correct"]).bool()
    sure = (given["logits"] / heat).sigmoid()
    loss = -torch.where(right, sure, 1 - sure).log().mean()
    return {
        "error": 100 * calibration_error(calibration_bins(sure, right, bins)),
        "loss": loss.item(),
        "mean": 100 * sure.mean().item(),
        "accuracy": 100 * right.double().mean().item(),
    }


def states() -> list:
    heat, bins = "Temperature", "Bins"
    return [
        ([], answer()),
        ([(heat, 2.5)], answer(2.5)),
        ([(heat, 0.5), (bins, 20)], answer(0.5, 20)),
        ([(bins, 1)], answer(bins=1)),
    ]
