"""Day 5's arrows: PyTorch's cross-entropy and its gradient."""

import torch
import torch.nn.functional as F

LOGITS, CLASSES = [1.0, -0.5], ("negative", "positive")


def start() -> dict:
    return {"logits": LOGITS, "label": 1}


def gradient(logits: list[float], label: int) -> tuple[float, list[float]]:
    z = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(z, torch.tensor([label]))
    loss.backward()
    return loss.item(), z.grad[0].tolist()


def answer(logits: list[float], label: int) -> dict:
    loss, (g0, g1) = gradient(logits, label)
    p = torch.tensor(logits, dtype=torch.float64).softmax(0)[label].item()
    return {"label": CLASSES[label], "p": p, "loss": loss, "g0": g0, "g1": g1, "sum": 0.0}


def states() -> list:
    _, (g0, g1) = gradient(LOGITS, 1)
    after = [round(LOGITS[0] - g0, 1), round(LOGITS[1] - g1, 1)]  # a slider moves by tenths
    far = [("Logit of negative", 5.5), ("Logit of positive", -5.5)]
    return [
        ([], answer(LOGITS, 1)),
        ([("The label is", "0")], answer(LOGITS, 0)),
        ([("One step downhill", "click")], answer(after, 1)),
        (far, answer([5.5, -5.5], 1)),
        ([("Logit of negative", 0), ("Logit of positive", 0)], answer([0.0, 0.0], 1)),
    ]
