"""Day 9's average: torch's own exponential moving average of a weight that wanders."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

STEPS = 1000


def path() -> torch.Tensor:
    """A weight that settles at 2 and goes on to shake."""
    dice = torch.Generator().manual_seed(9)
    settled = 2 * (1 - torch.exp(-torch.arange(STEPS + 1) / 60))
    return (settled + 0.35 * torch.randn(STEPS + 1, generator=dice)).double().round(decimals=4)


def start() -> dict:
    return {"path": path()}


def answer(n: int = 500, steps: int = 300) -> dict[str, float]:
    weights, model = path(), nn.Linear(1, 1, bias=False).double()
    beta = 1 - 1 / n
    nn.init.constant_(model.weight, weights[0].item())
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(beta))
    averaged.update_parameters(model)  # the first call copies
    for step in range(1, steps + 1):
        nn.init.constant_(model.weight, weights[step].item())
        averaged.update_parameters(model)
    return {
        "beta": beta,
        "steps": steps,
        "left": 100 * beta**steps,
        "mean": averaged.module.weight.item(),
        "weight": weights[steps].item(),
    }


def states() -> list:
    n = "The average reaches back 1/(1 − β) steps, here"
    return [
        ([], answer()),
        ([(n, 50)], answer(50)),
        ([(n, 1)], answer(1)),
        ([(n, 500), ("Steps of the run", 1000)], answer(500, 1000)),
    ]
