# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""Accuracy, loss, and how sure a measured accuracy is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Metrics", "evaluate", "wilson_interval"]


# chapters/day05_training.md · `evaluate`
@dataclass(frozen=True)
class Metrics:
    """What a pass over `n` examples found: the share of right answers and the mean loss per example."""

    n: int
    accuracy: float
    loss: float

    @property
    def interval95(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (see `wilson_interval`)."""
        return wilson_interval(round(self.accuracy * self.n), self.n)

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval95)
        return f"accuracy {100 * self.accuracy:.1f} % (95 %: {low:.1f} to {high:.1f}, n = {self.n}), loss {self.loss:.3f}"


# chapters/day05_training.md · `evaluate`
@torch.no_grad()
def evaluate(model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
    """Accuracy and mean loss of `model` over a loader's examples, without dropout and without gradients.

    Every example weighs the same, however the loader cuts its batches. The model's mode is restored.

    Raises:
        ValueError: if the loader yields no batch.
    """
    n, correct, loss = 0, 0, 0.0
    was_training = model.training
    model.eval()
    try:
        for batch in loader:
            logits, labels = model(batch["input_ids"], batch["attention_mask"]), batch["labels"]
            n += len(labels)
            correct += int((logits.argmax(-1) == labels).sum())
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
    finally:
        model.train(was_training)
    if n == 0:
        raise ValueError("there is nothing to evaluate: the loader yields no batch")
    return Metrics(n, correct / n, loss / n)


# chapters/day05_training.md · How sure is an accuracy?
def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share measured as `correct` hits in `n` trials (Wilson's score interval).

    Raises:
        ValueError: if `n` is below 1 or `correct` lies outside 0 … n.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct must lie in 0 … n with n at least 1, got correct={correct} and n={n}")
    z = 1.959964  # 95 % of a standard normal lie within ± z
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
