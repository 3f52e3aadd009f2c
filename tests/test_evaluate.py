# Generated from chapters/day05_training.md, chapters/day07_experiments.md, chapters/day09_sprint.md, chapters/day10_report.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.evaluate`."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minitransformer.data import Examples
from minitransformer.evaluate import (
    _EDITS,
    _GROUPS,
    LABELS,
    CalibrationBin,
    Metrics,
    Prediction,
    _group_names,
    _swap_letters,
    _traits,
    accuracy_by_group,
    calibration_bins,
    calibration_error,
    classify,
    confusion_matrix,
    difference_interval,
    evaluate,
    gain_of_runs,
    mcnemar,
    mean_interval,
    predict,
    robustness,
    score,
    wilson_interval,
)
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer


# chapters/day05_training.md · `evaluate`
class SecondToken(nn.Module):
    """A model whose logits for (negative, positive) are (0, 1) if the second token is 5, else (2, 0)."""

    def __init__(self) -> None:
        super().__init__()
        rows = [[0.0, 1.0] if token == 5 else [2.0, 0.0] for token in range(8)]
        self.table = nn.Embedding.from_pretrained(torch.tensor(rows), freeze=False)
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B K"]:
        return self.dropout(self.table(input_ids[:, 1]))


def five_examples(*sizes: int) -> list[dict[str, Tensor]]:
    """Five examples in batches of the given sizes; `SecondToken` gets all but the fourth right."""
    ids = torch.tensor([[2, 5, 3], [2, 6, 3], [2, 5, 3], [2, 5, 3], [2, 6, 3]])
    labels = torch.tensor([1, 0, 1, 0, 0])
    parts = zip(ids.split(list(sizes)), labels.split(list(sizes)), strict=True)
    return [{"input_ids": i, "attention_mask": i > 0, "labels": y} for i, y in parts]


def test_evaluate_counts_examples_not_batches() -> None:
    losses = [math.log(1 + math.exp(-d)) for d in (1, 2, 1, -1, 2)]
    for sizes in ((3, 2), (4, 1), (5,), (1, 1, 3)):
        metrics = evaluate(SecondToken(), five_examples(*sizes))
        assert (metrics.n, metrics.accuracy) == (5, 0.8), f"batches of {sizes}"
        assert math.isclose(metrics.loss, sum(losses) / 5, rel_tol=1e-6), sizes


def test_evaluate_leaves_the_model_as_it_was() -> None:
    for training in (True, False):
        model = SecondToken().train(training)
        first, second = (evaluate(model, five_examples(3, 2)) for _ in range(2))
        assert first == second, "dropout was on"
        assert model.training is training and model.dropout.training is training, "the mode was not restored"
    model.train()
    model.dropout.eval()
    evaluate(model, five_examples(5))
    assert model.training and not model.dropout.training, "one part had a mode of its own"
    unknown = five_examples(5)[0] | {"input_ids": torch.full((5, 3), 99)}
    for batches, kind in (([unknown], IndexError), ([], ValueError)):
        with pytest.raises(kind):
            evaluate(model, batches)
        assert model.training, "the mode is restored after an exception too"


def test_predict_keeps_the_order() -> None:
    logits, labels = predict(SecondToken(), five_examples(3, 2))
    assert labels.tolist() == [1, 0, 1, 0, 0] and not logits.requires_grad
    assert logits.tolist() == [[0, 1], [2, 0], [0, 1], [0, 1], [2, 0]]
    assert score(logits, labels) == evaluate(SecondToken(), five_examples(5))


# chapters/day05_training.md · How sure is an accuracy?
def test_wilson_interval_ends_solve_the_equation() -> None:
    for correct, n in ((700, 872), (7, 8), (1, 13), (50, 100)):
        share, ends = correct / n, wilson_interval(correct, n)
        for p in ends:
            assert math.isclose((share - p) ** 2, 1.959964**2 * p * (1 - p) / n, rel_tol=1e-9), (
                correct,
                n,
                p,
            )
        assert ends[0] < share < ends[1]
    assert wilson_interval(0, 5)[0] < 1e-12 and wilson_interval(5, 5)[1] > 1 - 1e-12
    assert 0.4 < wilson_interval(0, 5)[1] < 0.5, "five failures do not prove that success is impossible"
    for correct, n in ((1, 0), (9, 8), (-1, 8)):
        with pytest.raises(ValueError, match=f"n={n}"):
            wilson_interval(correct, n)


def test_metrics_carry_their_interval() -> None:
    metrics = Metrics(n=872, accuracy=700 / 872, loss=0.5)
    assert metrics.interval95 == wilson_interval(700, 872)
    assert str(metrics) == "accuracy 80.3 % (95 %: 77.5 to 82.8, n = 872), loss 0.500"


# chapters/day05_training.md · The script
def test_classify_names_label_and_probability() -> None:
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "good", "bad"]), max_length=7)
    good, bad = classify(SecondToken(), tokenizer, ["good good film", "bad"])
    assert (good.text, good.label) == ("good good film", "positive")
    assert good.probability == round(1 / (1 + math.exp(-1)), 4)
    assert bad == Prediction("bad", LABELS[0], bad.probability)
    assert bad.probability > 0.85
    broken = SecondToken()
    broken.register_forward_hook(lambda module, inputs, out: out * torch.nan)
    try:
        classify(broken, tokenizer, ["good"])
    except ValueError as error:
        assert "not finite" in str(error)
    else:
        raise AssertionError("a broken model answers")


# chapters/day07_experiments.md · Three runs and Student's t
def test_mean_interval_is_students() -> None:
    factor = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # derived for three values
    mean, half = mean_interval([0.80, 0.81, 0.85])
    assert math.isclose(mean, 0.82) and math.isclose(half, factor * math.sqrt(0.0007 / 3), rel_tol=1e-9)
    # Two values: Student's t with one degree of freedom, whose quantile is a tangent.
    mean, half = mean_interval([1.0, 3.0])
    assert math.isclose(mean, 2.0) and math.isclose(half, math.tan(0.95 * math.pi / 2), rel_tol=1e-9)
    shifted, same = mean_interval([10.80, 10.81, 10.85])
    assert math.isclose(shifted, 10.82) and math.isclose(same, mean_interval([0.80, 0.81, 0.85])[1])
    for few in ([], [0.8]):
        try:
            mean_interval(few)
            raise AssertionError("one value cannot have a spread")
        except ValueError as error:
            assert str(len(few)) in str(error)


# chapters/day07_experiments.md · McNemar: a coin for every disagreement
def answers(only_first: int, only_second: int, both: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two models' answers with these counts."""
    counts = (only_first, only_second, both, neither)
    kinds = ((True, False), (False, True), (True, True), (False, False))
    pairs = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_mcnemar_counts_the_tail_of_a_fair_coin() -> None:
    for b, c in ((8, 1), (1, 8), (2, 1), (5, 5), (40, 20), (0, 6)):
        m, most = b + c, max(b, c)
        tail = sum(math.comb(m, k) for k in range(most, m + 1)) / 2**m
        expected = min(1.0, 2 * tail)
        for both, neither in ((7, 3), (700, 100)):  # agreement must not matter
            first, second = answers(b, c, both, neither)
            assert math.isclose(mcnemar(first, second), expected, rel_tol=1e-9)
            assert math.isclose(mcnemar(second, first), expected, rel_tol=1e-9)


def test_mcnemar_at_its_edges() -> None:
    assert mcnemar([True, False], [True, False]) == 1.0 and mcnemar([], []) == 1.0
    try:
        mcnemar([True], [True, False])
        raise AssertionError("two different sets of sentences were compared")
    except ValueError as error:
        assert "1 and 2" in str(error)


# chapters/day09_sprint.md · What each ingredient gives
def test_gain_of_runs():
    before = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)  # 1/4 and 2/4 right
    after = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)  # 3/4 and 4/4
    gain, by_seeds, by_sentences = gain_of_runs(before, after)
    # variances 1/32 each, over two runs: spread √(1/32); Student's factor is 4.303
    # by sentence 0, 1/2, 1, 1/2: deviation √(1/6), over four sentences
    assert gain == 0.5 and abs(by_seeds - 4.3027 * math.sqrt(1 / 32)) < 1e-4
    assert abs(by_sentences - 1.96 * math.sqrt(1 / 6) / 2) < 1e-9
    # a third run, 2/4 right: squares add to 1/32 and 2/16 over three degrees of freedom
    gain, by_seeds, _ = gain_of_runs(before, np.vstack([after, [[1, 1, 0, 0]]]))
    pooled = math.sqrt((1 / 32 + 2 / 16) / 3)
    assert math.isclose(gain, 0.375)
    assert abs(by_seeds - 3.1824 * pooled * math.sqrt(1 / 2 + 1 / 3)) < 1e-4
    for wrong in (after[:, :3], after[:1]):
        with pytest.raises(ValueError, match="runs at least 2, sentences equal"):
            gain_of_runs(before, wrong)


# chapters/day10_report.md · What a reading leaves behind
def test_traits() -> None:
    found = {"words": 6, "negation": True, "contrast": False}
    assert _traits("it 's not a bad film") == found
    assert _traits("They didn't try , but") == found | {"contrast": True}
    knotty = _traits("another knotty buttress")
    assert knotty["negation"] is knotty["contrast"] is False


# chapters/day10_report.md · Do validation and test agree?
def test_difference_interval() -> None:
    low, high = difference_interval(Metrics(1821, 0.9, 0.3), Metrics(872, 0.9, 0.3))
    half = 1.96 * math.sqrt(0.09 / 872 + 0.09 / 1821)  # close to the formula here
    assert abs(low + half) < 1e-3 and abs(high - half) < 1e-3
    # all right in both: the first can only be worse than it looks, or the second
    low, high = difference_interval(Metrics(50, 1.0, 0.0), Metrics(20, 1.0, 0.0))
    assert math.isclose(low, wilson_interval(50, 50)[0] - 1)
    assert math.isclose(high, 1 - wilson_interval(20, 20)[0])

    draws, times, hits = np.random.default_rng(0), 2000, 0
    many, few = draws.binomial(300, 0.95, times), draws.binomial(80, 0.85, times)
    for a, b in zip(many, few, strict=True):
        first, second = Metrics(300, a / 300, 0.0), Metrics(80, b / 80, 0.0)
        low, high = difference_interval(first, second)
        hits += low <= 0.95 - 0.85 <= high
    assert abs(hits / times - 0.95) < 0.02, f"the truth is inside {hits} of {times} times"


# chapters/day10_report.md · Four numbers instead of one
def test_confusion_matrix() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    predicted = torch.tensor([0, 1, 1, 0, 1, 0])
    rows = confusion_matrix(predicted, labels).tolist()
    assert rows == [[2, 2], [1, 1]], "rows are the labels"
    rows = confusion_matrix(labels[:1], labels[:1]).tolist()
    assert rows == [[1, 0], [0, 0]], "labels that are absent count 0"
    for wrong in (2, -1):
        try:
            confusion_matrix(torch.tensor([wrong]), labels[:1])
        except ValueError as error:
            assert f"got [{min(0, wrong)}, {max(0, wrong)}]" in str(error)
        else:
            raise AssertionError(f"{wrong} was counted as an answer")


# chapters/day10_report.md · Does it know when it knows?
def test_calibration() -> None:
    confidence = torch.tensor([0.5, 0.54, 0.96, 0.99, 1.0])
    correct = torch.tensor([True, False, True, True, False])
    bins = calibration_bins(confidence, correct)
    assert [b.n for b in bins] == [2, 3]
    assert math.isclose(bins[0].accuracy, 1 / 2)
    assert math.isclose(bins[1].accuracy, 2 / 3)
    assert math.isclose(bins[0].confidence, 0.52, rel_tol=1e-6)
    expected = (2 * 0.02 + 3 * abs((0.96 + 0.99 + 1.0) / 3 - 2 / 3)) / 5
    assert math.isclose(calibration_error(bins), expected, rel_tol=1e-6)
    exact, too_sure = CalibrationBin(3, 0.9, 0.9), CalibrationBin(1, 1.0, 0.6)
    assert calibration_error([exact, too_sure]) == 0.1
    by_hand = torch.tensor([0.55, 0.65, 0.9, 0.95, 1.0])
    assert [b.n for b in calibration_bins(by_hand, correct, bins=2)] == [2, 3]


# chapters/day10_report.md · Where it is right: length, negation, contrast
def test_groups() -> None:
    records = [{**_traits("no " * n), "correct": n == 5} for n in (5, 10, 11, 31)]
    found = accuracy_by_group(records)
    assert found["up to 10 words"] == (2, 1) and found["over 30 words"] == (1, 0)
    assert found["with a negation"] == (4, 1) and "with a contrast" not in found
    order = [_GROUPS.index(name) for name in accuracy_by_group(reversed(records))]
    assert order == sorted(order), "shortest first, whatever the order of the examples"
    for words, group in ((20, "11 to 20 words"), (21, "21 to 30 words"), (30, "21 to 30 words")):
        names = _group_names({"words": words, "negation": False, "contrast": True})
        assert names == [group, "without a negation", "with a contrast"], names


# chapters/day10_report.md · Small edits
def test_edits() -> None:
    assert _swap_letters("a great film") == "a gerat film" and _swap_letters("a") == "a"
    texts = {name: edit("not bad , at all .") for name, edit in _EDITS.items()}
    assert texts["without full stops at the end"] == "not bad , at all"
    assert texts["without commas"] == "not bad at all ." and texts["in capitals"].isupper()
    assert texts["with exclamation marks"] == "not bad , at all ! ! !"
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "a", "b", "!"]), 12)

    class Shouting(nn.Module):
        """Positive if there is a "!" in the text."""

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            shouts = (input_ids == 7).any(1).float()
            return torch.stack([1 - shouts, shouts], -1)

    model = Shouting()
    model.weight = nn.Parameter(torch.zeros(1))  # predict asks where the parameters live
    found = robustness(model, tokenizer, Examples(["a b .", "b !", "a !"], [1, 1, 1], "three"))
    assert np.allclose(found["in capitals"], (1, 2 / 3)), "all answers stay, one of them wrong"
    assert np.allclose(found["with exclamation marks"], (2 / 3, 1)), "the wrong answer turns"


# chapters/day10_report.md · A test must be able to fail
def test_calibration_counts_both_directions() -> None:
    too_sure, too_shy = CalibrationBin(10, 0.9, 0.7), CalibrationBin(30, 0.6, 0.8)
    assert math.isclose(calibration_error([too_sure, too_shy]), 0.2)
    exact = CalibrationBin(30, 0.6, 0.6)
    assert math.isclose(calibration_error([too_sure, exact]), 0.05)
