"""Day 11's keys: autograd's gradient of ½(out − target)² by the scores and the weights."""

import torch

SCORES, VALUES, TARGET = [1.0, 0.0, -1.0], [4.0, 0.0, -2.0], 0.0


def start() -> dict:
    return {"scores": SCORES, "values": VALUES, "target": TARGET}


def answer(scores=SCORES, values=VALUES, target: float = TARGET) -> dict[str, float]:
    s = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    weights = s.softmax(0)
    weights.retain_grad()
    out = weights @ torch.tensor(values, dtype=torch.float64)
    ((out - target) ** 2 / 2).backward()
    ds = {f"ds{i + 1}": g for i, g in enumerate(s.grad.tolist())}
    mean = (weights.detach() @ weights.grad).item()
    return ds | {"out": out.item(), "target": target, "longest": s.grad.abs().max().item(), "mean": mean}


def states() -> list:
    saturated = [("Score of key 1", 6), ("Score of key 3", -6)]
    alike = [(f"Value of key {i}", 2) for i in (1, 2, 3)]
    return [
        ([], answer()),
        (saturated, answer([6.0, 0.0, -6.0])),
        (alike, answer(values=[2.0, 2.0, 2.0])),
        ([("The output should be", -2.5)], answer(target=-2.5)),
    ]
