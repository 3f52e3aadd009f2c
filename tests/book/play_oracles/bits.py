"""Day 6's formats: PyTorch's own rounding, and its own halves of a recorded histogram."""

import math

import torch

RECORDED = {"gradients"}  # on the page they are those of a recorded model; any histogram will do here
GRADIENTS = [[power, count] for power, count in zip(range(-44, -4), [1, 2, 4, 7, 9] * 8, strict=True)]


def start() -> dict:
    return {"number": 0.1, "gradients": GRADIENTS}


def shown(value: float) -> str | float:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return str(int(value)) if value.is_integer() else value  # of a whole number, every digit


def answer(number: float, power: int) -> dict:
    kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    kept = {name: torch.tensor(number, dtype=torch.float64).to(kind).item() for name, kind in kinds.items()}
    total = sum(count for _, count in GRADIENTS)
    # the middle of each bin, a power and a half, stands for all that is in it
    sizes = [(torch.tensor(1.5 * 2.0 ** (p + power)).half().item(), n) for p, n in GRADIENTS]
    lost, over = (sum(n for x, n in sizes if test(x)) for test in (lambda x: x == 0, math.isinf))
    words = {name: shown(value) for name, value in kept.items()}
    return words | {"grow": 2.0**power, "lost": 100 * lost / total, "over": 100 * over / total}


def states() -> list:
    scale = "The loss is multiplied by 2 to the"
    return [
        ([], answer(0.1, 0)),
        ([("A number", 70000)], answer(70000, 0)),
        ([("A number", 16777217)], answer(16777217, 0)),
        ([("A number", 3e-8), (scale, 12)], answer(3e-8, 12)),
        ([("A number", -2049), (scale, 25)], answer(-2049, 25)),
    ]
