# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.evaluate`."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minitransformer.evaluate import Metrics, evaluate, wilson_interval


# chapters/day05_training.md · `evaluate`
class Lookup(nn.Module):
    """A model with known logits: (2, 0) if a text begins with token 0, (0, 1) if with token 1."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B K"]:
        return self.dropout(self.table(input_ids[:, 0]))


# chapters/day05_training.md · `evaluate`
def four_examples(*sizes: int) -> list[dict[str, Tensor]]:
    """Four examples in batches of the given sizes; `Lookup` gets the first three right."""
    ids, labels = torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1]]), torch.tensor([0, 1, 0, 0])
    parts = zip(ids.split(list(sizes)), labels.split(list(sizes)), strict=True)
    return [{"input_ids": i, "attention_mask": i >= 0, "labels": y} for i, y in parts]


# chapters/day05_training.md · `evaluate`
def test_evaluate_counts_examples_not_batches() -> None:
    losses = [
        math.log(1 + math.exp(-2)),
        math.log(1 + math.exp(-1)),
        math.log(1 + math.exp(-2)),
        math.log(1 + math.e),
    ]
    for sizes in ((3, 1), (4,), (1, 1, 2)):
        metrics = evaluate(Lookup(), four_examples(*sizes))
        assert (metrics.n, metrics.accuracy) == (4, 0.75), f"batches of {sizes}: {metrics}"
        assert math.isclose(metrics.loss, sum(losses) / 4, rel_tol=1e-6), (
            f"batches of {sizes}: {metrics.loss}"
        )


# chapters/day05_training.md · `evaluate`
def test_evaluate_leaves_the_model_as_it_was() -> None:
    for training in (True, False):
        model = Lookup().train(training)
        first, second = (evaluate(model, four_examples(3, 1)) for _ in range(2))
        assert first == second, "dropout was on"
        assert model.training is training and model.dropout.training is training, "the mode was not restored"
    model.train()
    try:
        evaluate(model, [{"input_ids": torch.tensor([[99]]), "attention_mask": None, "labels": None}])
        raise AssertionError("token 99 does not exist")
    except IndexError:
        assert model.training, "after an exception too"
    try:
        evaluate(model, [])
        raise AssertionError("an empty loader went unnoticed")
    except ValueError as error:
        assert "no batch" in str(error)


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
        try:
            wilson_interval(correct, n)
            raise AssertionError(f"{correct} of {n} was accepted")
        except ValueError as error:
            assert str(n) in str(error)


# chapters/day05_training.md · How sure is an accuracy?
def test_metrics_carry_their_interval() -> None:
    metrics = Metrics(n=872, accuracy=700 / 872, loss=0.5)
    assert metrics.interval95 == wilson_interval(700, 872)
    assert str(metrics) == "accuracy 80.3 % (95 %: 77.5 to 82.8, n = 872), loss 0.500"
