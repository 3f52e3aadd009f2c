"""Day 8's ball: torch's SGD on x²/2 with the same noise, and the noise floor of the text."""

import torch

PLACE, STEPS = 4.0, 200


def noise() -> torch.Tensor:
    return torch.randn(STEPS, generator=torch.Generator().manual_seed(8), dtype=torch.float64).round(decimals=6)


def start() -> dict:
    return {"noise": noise(), "place": PLACE}


def answer(rate: float = 0.8, strength: float = 1.0, falls: bool = False) -> dict[str, float]:
    x = torch.tensor(PLACE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=rate)
    losses = []
    for step, push in enumerate(noise()):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / STEPS) if falls else rate
        optimizer.zero_grad()
        (x**2 / 2 + strength * push * x).backward()
        optimizer.step()
        losses.append(x.item() ** 2 / 2)
    floor = rate * strength**2 / (2 * (2 - rate))
    return {"mean": sum(losses[-50:]) / 50, "floor": floor, "end": x.item()}


def states() -> list:
    return [
        ([], answer()),
        ([("Learning rate", 0.1)], answer(0.1)),
        ([("Learning rate", 1.9), ("Noise of the gradients", 2)], answer(1.9, 2.0)),
        ([("The rate falls to zero", True)], answer(falls=True)),
        ([("Noise of the gradients", 0)], answer(strength=0.0)),
    ]
