# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day07_experiments.md; edit the chapters, not this file.
"""Accuracy, loss, how sure a measured accuracy is, and a model's answers."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minitransformer.data import collate
from minitransformer.tokenizer import WordTokenizer

__all__ = [
    "LABELS",
    "Metrics",
    "Prediction",
    "classify",
    "evaluate",
    "mcnemar",
    "mean_interval",
    "predict",
    "score",
    "wilson_interval",
]


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


# chapters/day06_engineering.md · One pass, many uses
def evaluate(model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
    """Accuracy and mean loss of `model` over a loader's examples (see `predict`)."""
    return score(*predict(model, loader))


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


# chapters/day06_engineering.md · One pass, many uses
@torch.no_grad()
def predict(
    model: nn.Module, loader: Iterable[dict[str, Tensor]]
) -> tuple[Float[Tensor, "N K"], Int[Tensor, " N"]]:
    """The logits and the labels of a loader's examples, in its order and on the CPU, without dropout or gradients.

    The batches go to the device of the model, whose mode is restored.

    Raises:
        ValueError: if the loader yields no batch.
    """
    device, was_training = next(model.parameters()).device, model.training
    logits, labels = [], []
    model.eval()
    try:
        for batch in loader:
            scores = model(batch["input_ids"].to(device), batch["attention_mask"].to(device))
            logits.append(scores.float().cpu())
            labels.append(batch["labels"])
    finally:
        model.train(was_training)
    if not logits:
        raise ValueError("there is nothing to evaluate: the loader yields no batch")
    return torch.cat(logits), torch.cat(labels)


# chapters/day06_engineering.md · One pass, many uses
def score(logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Metrics:
    """Accuracy and mean cross-entropy of logits; every example weighs the same."""
    correct = int((logits.argmax(-1) == labels).sum())
    return Metrics(len(labels), correct / len(labels), F.cross_entropy(logits, labels).item())


# chapters/day06_engineering.md · One pass, many uses
LABELS = ("negative", "positive")


# chapters/day06_engineering.md · One pass, many uses
@dataclass(frozen=True)
class Prediction:
    """The label of a text, and the probability that the model gives to that label."""

    text: str
    label: str
    probability: float


# chapters/day06_engineering.md · One pass, many uses
def classify(model: nn.Module, tokenizer: WordTokenizer, texts: Sequence[str]) -> list[Prediction]:
    """What a model of two labels says about texts, as one batch."""
    batch = collate([(tokenizer.encode(text), -1) for text in texts], tokenizer.padding_id)
    logits, _ = predict(model, [batch])
    found = logits.softmax(-1).max(-1)
    answers = zip(texts, found.indices.tolist(), found.values.tolist(), strict=True)
    return [Prediction(text, LABELS[index], probability) for text, index, probability in answers]


# chapters/day07_experiments.md · Three runs and Student's t
def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of repeated measurements and the half width of its 95 % interval (Student's t).

    Raises:
        ValueError: for fewer than two values, which say nothing about their spread.
    """
    from scipy.stats import t  # here, because it takes a second to import

    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least two measurements, got {n}")
    return statistics.mean(values), float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)


# chapters/day07_experiments.md · McNemar: a coin for every disagreement
def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The p-value of McNemar's exact test: do two models that saw the same examples err equally often?

    `first` and `second` say, example by example, who was right. Only examples on which they differ count.

    Raises:
        ValueError: if the two do not have the same length.
    """
    from scipy.stats import binomtest  # here, because it takes a second to import

    if len(first) != len(second):
        raise ValueError(f"both models must have seen the same examples, got {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
