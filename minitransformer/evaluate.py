# Generated from chapters/day05_training.md, chapters/day07_experiments.md, chapters/day09_sprint.md, chapters/day10_report.md; edit the chapters, not this file.
"""Accuracy, loss, calibration, groups of examples, and how sure a measured accuracy is."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minitransformer.data import Examples, collate, make_loader
from minitransformer.tokenizer import WordTokenizer

__all__ = [
    "LABELS",
    "CalibrationBin",
    "Metrics",
    "Prediction",
    "accuracy_by_group",
    "calibration_bins",
    "calibration_error",
    "classify",
    "confusion_matrix",
    "difference_interval",
    "evaluate",
    "gain_of_runs",
    "mcnemar",
    "mean_interval",
    "predict",
    "robustness",
    "score",
    "wilson_interval",
]  # fmt: skip


# chapters/day05_training.md · `evaluate`
@dataclass(frozen=True)
class Metrics:
    """What a pass over `n` examples found: share of right answers and mean loss."""

    n: int
    accuracy: float
    loss: float

    @property
    def interval95(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (see `wilson_interval`)."""
        return wilson_interval(round(self.accuracy * self.n), self.n)

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval95)
        interval = f"(95 %: {low:.1f} to {high:.1f}, n = {self.n})"
        return f"accuracy {100 * self.accuracy:.1f} % {interval}, loss {self.loss:.3f}"


@torch.no_grad()
def predict(
    model: nn.Module, loader: Iterable[dict[str, Tensor]]
) -> tuple[Float[Tensor, "N K"], Int[Tensor, " N"]]:
    """Logits and labels of a loader's examples, in its order, without dropout.

    The batches go to the device of the model; the mode of each part is restored.

    Raises:
        ValueError: if the loader yields no batch.
    """
    device = next(model.parameters()).device
    modes = [(part, part.training) for part in model.modules()]
    logits, labels = [], []
    model.eval()
    try:
        for batch in loader:
            scores = model(batch["input_ids"].to(device), batch["attention_mask"].to(device))
            logits.append(scores.float().cpu())
            labels.append(batch["labels"])
    finally:
        for part, mode in modes:
            part.training = mode
    if not logits:
        raise ValueError("there is nothing to evaluate: the loader yields no batch")
    return torch.cat(logits), torch.cat(labels)


def score(logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Metrics:
    """Accuracy and mean cross-entropy of logits; every example weighs the same."""
    correct = int((logits.argmax(-1) == labels).sum())
    return Metrics(len(labels), correct / len(labels), F.cross_entropy(logits, labels).item())


def evaluate(model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
    """Accuracy and mean loss of `model` over a loader's examples (see `predict`)."""
    return score(*predict(model, loader))


# chapters/day05_training.md · How sure is an accuracy?
def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, `correct` hits in `n` trials (Wilson's interval).

    Raises:
        ValueError: if `n` is below 1 or `correct` lies outside 0 … n.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct must lie in 0 … n with n ≥ 1, got correct={correct} and n={n}")
    z = 1.959964  # 95 % of a standard normal lie within ± z
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


# chapters/day05_training.md · The script
LABELS = ("negative", "positive")


@dataclass(frozen=True)
class Prediction:
    """The label of a text, and the probability that the model gives to that label."""

    text: str
    label: str
    probability: float


def classify(
    model: nn.Module, tokenizer: WordTokenizer, texts: Sequence[str], batch_size: int = 32
) -> list[Prediction]:
    """What a model of two labels says about texts, in their order; in 32 bits no answer depends on the other texts.

    Probabilities are rounded to four digits. The batches hold texts of similar length.

    Raises:
        ValueError: if an answer of the model is not a finite number.
    """
    items = [(tokenizer.encode(text), place) for place, text in enumerate(texts)]
    items.sort(key=lambda item: len(item[0]))
    parts = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
    logits, places = predict(model, (collate(part, tokenizer.padding_id) for part in parts))
    if not logits.isfinite().all():
        raise ValueError("the model's answers are not finite: its weights are broken")
    likely = logits.softmax(-1).max(-1).values
    # within 2e-6 of where the fourth digit, or the label, changes
    shaky = ((likely * 1e4 % 1 - 0.5).abs() < 0.02) | (likely < 0.5 + 2e-6)
    for i in shaky.nonzero().flatten().tolist():
        logits[i] = predict(model, [collate([items[i]], tokenizer.padding_id)])[0][0]
    found = logits[places.argsort()].softmax(-1).max(-1)
    answers = zip(texts, found.indices.tolist(), found.values.tolist(), strict=True)
    return [Prediction(text, LABELS[index], round(share, 4)) for text, index, share in answers]


# chapters/day07_experiments.md · Three runs and Student's t
def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of measurements and the half width of its 95 % interval (Student's t).

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
    """The p-value of McNemar's exact test: do two models err equally often?

    `first` and `second` say who was right on each of the same examples.
    Only examples on which they differ count.

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


# chapters/day09_sprint.md · What each ingredient gives
def gain_of_runs(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """By how much the second runs are right more often, and two 95 % half widths.

    Both arrays say what was right, shape [runs, sentences], two runs at least; the
    sentences are the same. The first half width (by seeds) is Student's, with the
    deviation pooled; the second (by sentences) holds for these runs on other sentences
    of the kind. All are shares.
    """
    if before.shape[1:] != after.shape[1:] or min(len(before), len(after)) < 2:
        raise ValueError(
            "two shapes [runs, sentences] are needed, runs at least 2, sentences "
            f"equal, got {before.shape} and {after.shape}"
        )
    from scipy.stats import ttest_ind  # here, because it takes a second to import

    gains = after.mean(0) - before.mean(0)
    ends = ttest_ind(after.mean(1), before.mean(1)).confidence_interval()
    by_sentences = 1.96 * gains.std(ddof=1) / math.sqrt(len(gains))
    return float(gains.mean()), float(ends.high - ends.low) / 2, float(by_sentences)


# chapters/day10_report.md · What a reading leaves behind
# each list in two parts, to fit on a line
_CLEAR = {"no", "not", "never", "nothing", "nobody", "none", "neither", "nor"}

_NEGATIONS = _CLEAR | {"cannot", "without", "hardly", "barely", "n't"}

_CONCEDING = {"but", "although", "though", "however", "despite", "yet", "while"}

_CONTRASTS = _CONCEDING | {"instead", "unless"}


def _traits(text: str) -> dict[str, int | bool]:
    """What may make a text hard: its number of words, a negation, a turn."""
    words = text.lower().replace("n't", " n't").split()
    return {
        "words": len(words),
        "negation": any(word in _NEGATIONS for word in words),
        "contrast": any(word in _CONTRASTS for word in words),
    }


# chapters/day10_report.md · Do validation and test agree?
def difference_interval(first: Metrics, second: Metrics) -> tuple[float, float]:
    """The 95 % interval of `first` less `second`, two accuracies on different examples.

    Newcombe (1998), method 10.
    """
    (low1, high1), (low2, high2) = first.interval95, second.interval95
    difference = first.accuracy - second.accuracy
    below = math.hypot(first.accuracy - low1, high2 - second.accuracy)
    above = math.hypot(high1 - first.accuracy, second.accuracy - low2)
    return difference - below, difference + above


# chapters/day10_report.md · Four numbers instead of one
def confusion_matrix(predicted: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> Int[Tensor, "K K"]:
    """How often each label (row) was answered by each label (column).

    Raises:
        ValueError: if something else than 0 or 1 is among them.
    """
    size, both = len(LABELS), torch.stack([labels, predicted])
    if ((both < 0) | (both >= size)).any():
        raise ValueError(f"labels must be 0 or 1, got {both.unique().tolist()}")
    places = torch.bincount(labels * size + predicted, minlength=size * size)
    return places.view(size, size)


# chapters/day10_report.md · Does it know when it knows?
@dataclass(frozen=True)
class CalibrationBin:
    """Answers of similar confidence: how many, their mean, the share that is right."""

    n: int
    confidence: float
    accuracy: float


def calibration_bins(
    confidence: Float[Tensor, " N"], correct: Bool[Tensor, " N"], bins: int = 10
) -> list[CalibrationBin]:
    """Answers in equal `bins` of confidence from 1/2 to 1; empty ones are left out."""
    index = ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)
    found = []
    for i in range(bins):
        if len(inside := (index == i).nonzero().flatten()):
            mean = confidence[inside].mean().item()
            share = correct[inside].double().mean().item()
            found.append(CalibrationBin(len(inside), mean, share))
    return found


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy.

    Guo et al. (2017), section 2.
    """
    gaps = sum(b.n * abs(b.confidence - b.accuracy) for b in bins)
    return gaps / sum(b.n for b in bins)


# chapters/day10_report.md · Where it is right: length, negation, contrast
_GROUPS = (
    "up to 10 words",
    "11 to 20 words",
    "21 to 30 words",
    "over 30 words",
    "with a negation",
    "without a negation",
    "with a contrast",
    "without a contrast",
)


def _group_names(record: dict[str, Any]) -> list[str]:
    """The groups of an example with these `_traits`: length, negation, contrast."""
    length = _GROUPS[sum(record["words"] > limit for limit in (10, 20, 30))]
    return [length, _GROUPS[4 if record["negation"] else 5], _GROUPS[6 if record["contrast"] else 7]]


def accuracy_by_group(records: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """For each group that occurs: its number of examples, and how many are right.

    A record says words (their number), negation, contrast and correct.
    """
    found = {name: [0, 0] for name in _GROUPS}
    for record in records:
        for name in _group_names(record):
            found[name][0] += 1
            found[name][1] += bool(record["correct"])
    return {name: (n, correct) for name, (n, correct) in found.items() if n}


# chapters/day10_report.md · Small edits
def _swap_letters(text: str) -> str:
    """A typing error: letters 2 and 3 of the longest word change places."""
    words = text.split(" ")
    i = max(range(len(words)), key=lambda k: len(words[k]))
    word = words[i]
    words[i] = word[:1] + word[2:3] + word[1:2] + word[3:]
    return " ".join(words)


_EDITS: dict[str, Callable[[str], str]] = {
    "in capitals": str.upper,
    "without full stops at the end": lambda text: text.rstrip(" ."),
    "with exclamation marks": lambda text: text.rstrip(" .") + " ! ! !",
    "two letters swapped": _swap_letters,
    "after 'i think that'": lambda text: "i think that " + text,
    "without commas": lambda text: " ".join(text.replace(",", " ").split()),
}


def robustness(
    model: nn.Module, tokenizer: WordTokenizer, examples: Examples
) -> dict[str, tuple[float, float]]:
    """Of each small edit: the share of answers that stay, and the accuracy after."""
    before = predict(model, make_loader(examples, tokenizer, 256))[0].argmax(-1)
    found = {}
    for name, edit in _EDITS.items():
        edited = replace(examples, texts=[edit(text) for text in examples.texts])
        logits, labels = predict(model, make_loader(edited, tokenizer, 256))
        same = (logits.argmax(-1) == before).double().mean().item()
        found[name] = (same, score(logits, labels).accuracy)
    return found
