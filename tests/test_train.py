# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.train`."""

import json
import math
import re
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minitransformer.config import DataConfig, RunConfig, TrainingConfig, load_config
from minitransformer.data import Examples, make_loader
from minitransformer.evaluate import evaluate
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.runs import RUN_FILES, checksum, read_records
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer
from minitransformer.train import (
    StepResult,
    average,
    fit,
    prepare,
    require_finite,
    run_epochs,
    sample,
    train_epoch,
    train_step,
    write_provenance,
)


# chapters/day05_training.md · Which way is down: softmax minus one-hot
def test_gradient_of_cross_entropy_is_softmax_minus_onehot() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 2, 1, 1, 2])
    (gradient,) = torch.autograd.grad(F.cross_entropy(z, y), z)
    expected = (z.softmax(-1) - F.one_hot(y, 3)) / 5
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)
    assert gradient.sum(-1).abs().max() < 1e-12, "what one class gains, the others lose"


# chapters/day05_training.md · A prediction before the first step
def test_first_loss_is_the_logarithm_of_the_number_of_classes() -> None:
    for K in (2, 3, 7):
        torch.manual_seed(K)
        config = ModelConfig(vocab_size=19, d_model=24, num_heads=3, d_ff=40, dropout=0.0, num_labels=K)
        model = TransformerForSequenceClassification(config)
        ids = torch.randint(5, 19, (4 * K, 6))
        loss = F.cross_entropy(model(ids), torch.arange(K).repeat(4))
        assert abs(loss.item() - math.log(K)) < 0.1, (
            f"{loss.item():.3f} for {K} classes, expected {math.log(K):.3f}"
        )


# chapters/day05_training.md · `train_step`
def small_model(**changes: object) -> TransformerForSequenceClassification:
    """A model in 64 bits with C=12, H=3, V=11."""
    torch.manual_seed(0)
    settings = {"vocab_size": 11, "d_model": 12, "num_heads": 3, "d_ff": 20, "max_length": 9, "dropout": 0.0}
    return TransformerForSequenceClassification(ModelConfig(**settings | changes)).double()


# chapters/day05_training.md · `train_step`
def small_batch() -> dict[str, Tensor]:
    """Three sentences of 6, 4 and 3 tokens, padded to 6."""
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0], [2, 10, 3, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([1, 0, 1])}


# chapters/day05_training.md · `train_step`
def test_train_step_is_one_clipped_step_downhill() -> None:
    batch, eta, limit = small_batch(), 0.3, 0.05
    model, twin = small_model(), small_model()
    loss = F.cross_entropy(twin(batch["input_ids"], batch["attention_mask"]), batch["labels"])
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    norm = torch.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > limit, "the test must clip, or it says nothing about clipping"
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)  # left over from somewhere
    result = train_step(model, batch, torch.optim.SGD(model.parameters(), eta), limit)
    assert math.isclose(result.loss, loss.item()) and math.isclose(
        result.grad_norm, norm.item(), rel_tol=1e-9
    )
    for ours, old, g in zip(model.parameters(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours, old - eta * g * limit / norm, rtol=0, atol=1e-6)


# chapters/day05_training.md · `train_step`
def test_train_step_does_not_see_padding() -> None:
    batch, model, twin = small_batch(), small_model(), small_model()
    garbled = batch | {"input_ids": batch["input_ids"].masked_fill(~batch["attention_mask"], 8)}
    results = [
        train_step(m, b, torch.optim.SGD(m.parameters(), 0.1)) for m, b in ((model, batch), (twin, garbled))
    ]
    assert math.isclose(results[0].loss, results[1].loss, rel_tol=1e-12), "the padding changed the loss"
    assert (results[0].examples, results[0].tokens) == (3, 13)
    torch.testing.assert_close(model.classifier.weight, twin.classifier.weight, rtol=0, atol=1e-12)


# chapters/day05_training.md · `train_step`
def test_train_step_stops_before_nan_reaches_the_weights() -> None:
    model = small_model()
    model.classifier.bias.data[0] = torch.nan
    before = model.encoder.embedding.weight.detach().clone()
    try:
        train_step(model, small_batch(), torch.optim.SGD(model.parameters(), 0.1), step=17)
        raise AssertionError("a loss of NaN went unnoticed")
    except FloatingPointError as error:
        assert "loss is nan at step 17" in str(error)
    assert torch.equal(model.encoder.embedding.weight, before), "the weights moved"


# chapters/day05_training.md · `train_step`
def test_require_finite_guards_the_gradient_too() -> None:
    model = small_model()
    model.classifier.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = model.classifier.bias.detach().clone()
    try:
        train_step(model, small_batch(), torch.optim.SGD(model.parameters(), 0.1), step=4)
        raise AssertionError("an infinite gradient went unnoticed")
    except FloatingPointError as error:
        assert re.search(r"gradient norm is (inf|nan) at step 4", str(error)), error
    assert torch.equal(model.classifier.bias, before), "the weights moved"
    require_finite("loss", torch.tensor(1e30), 1)  # large, but a number: no exception
    assert StepResult(1, 0.5, 0.1, 2, 3, 13).examples == 3


# chapters/day05_training.md · `train_epoch`
def test_train_epoch_is_its_steps_in_order() -> None:
    batches = [small_batch(), {name: value[:2] for name, value in small_batch().items()}]
    model, twin = small_model(), small_model()
    seen: list[StepResult] = []
    model.eval()
    results = train_epoch(model, batches, torch.optim.SGD(model.parameters(), 0.1), 1.0, 5, seen.append)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    assert results == seen == [train_step(twin, b, optimizer, 1.0, 5 + i) for i, b in enumerate(batches)]
    assert [r.examples for r in results] == [3, 2] and results[1].loss != results[0].loss
    assert model.training, "dropout must be on while training"
    try:
        train_epoch(model, [], optimizer)
        raise AssertionError("an empty loader went unnoticed")
    except ValueError as error:
        assert "no batch" in str(error)


# chapters/day05_training.md · The test of a training loop: a hundred examples
def test_train_epoch_drives_few_examples_to_zero_loss() -> None:
    examples = Examples(["a b", "b a", "a a b", "b b a"] * 2, [0, 1, 1, 0] * 2, "words in an order")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=7)
    torch.manual_seed(0)
    config = ModelConfig(
        len(tokenizer.vocabulary), d_model=24, num_heads=3, d_ff=32, max_length=7, dropout=0.0
    )
    model = TransformerForSequenceClassification(config)
    loader = make_loader(examples, tokenizer, batch_size=4, shuffle=True, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = [train_epoch(model, loader, optimizer)[-1].loss for _ in range(60)]
    assert abs(losses[0] - math.log(2)) < 0.4 and losses[-1] < 0.02, (losses[0], losses[-1])


# chapters/day05_training.md · The flow: train, validate, print
def test_average_weighs_by_examples() -> None:
    steps = [StepResult(1, 0.4, 1.0, correct=3, examples=3, tokens=20), StepResult(2, 2.0, 1.0, 0, 1, 7)]
    metrics = average(steps)
    assert (metrics.n, metrics.accuracy) == (4, 0.75)
    assert math.isclose(metrics.loss, 0.8), "the mean over examples is 0.8, the mean over batches 1.2"


# chapters/day05_training.md · Data for a run
def tiny_run(**changes: object) -> RunConfig:
    """A run of a second: 40 toy reviews, a model with C=8 and one layer."""
    settings = {
        "name": "tiny",
        "data": DataConfig("toy", train_size=40),
        "model": ModelConfig(vocab_size=500, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24),
        "training": TrainingConfig(epochs=2, batch_size=16, learning_rate=3e-3, log_every=2),
    }
    return RunConfig(**settings | changes)


# chapters/day05_training.md · Data for a run
def test_prepare_builds_the_vocabulary_from_training_texts_alone() -> None:
    config, tokenizer, train, validation = prepare(tiny_run(data=DataConfig("toy", train_size=4)))
    words, others = ({word for text in part.texts for word in text.split()} for part in (train, validation))
    assert len(train) == 4 and config.model.vocab_size == len(tokenizer.vocabulary) < 500
    assert words == set(tokenizer.vocabulary.tokens) - set(SPECIAL_TOKENS) and others - words, (
        "validation had a say"
    )
    assert not set(train.texts) & set(validation.texts), "training and validation share sentences"
    bounded, *_ = prepare(tiny_run(model=replace(config.model, vocab_size=9)))
    assert bounded.model.vocab_size == 9, "vocab_size is an upper bound"


# chapters/day05_training.md · Data for a run
def test_sample_is_a_repeatable_choice() -> None:
    examples = Examples([f"text {i}" for i in range(30)], [i % 2 for i in range(30)], "thirty")
    chosen = sample(examples, 7, seed=1)
    assert len(set(chosen.texts)) == 7 and chosen.source == "7 of thirty"
    assert all(int(text.split()[1]) % 2 == y for text, y in zip(chosen.texts, chosen.labels, strict=True))
    assert sample(examples, 7, seed=1) == chosen != sample(examples, 7, seed=2)
    assert sample(examples, None, seed=1) is examples
    try:
        sample(examples, 31, seed=0)
        raise AssertionError("31 of 30 were drawn")
    except ValueError as error:
        assert "31" in str(error) and "thirty" in str(error)


# chapters/day05_training.md · `fit`: the whole run
def quietly_fit(config: RunConfig, folder: Path) -> str:
    """Run `fit` and return what it printed."""
    with redirect_stdout(StringIO()) as out:
        fit(config, folder)
    return out.getvalue()


# chapters/day05_training.md · `fit`: the whole run
def test_fit_gives_the_same_run_for_the_same_seed() -> None:
    with tempfile.TemporaryDirectory() as base:
        a, b, c = (Path(base, name) for name in "abc")
        for folder, seed in ((a, 3), (b, 3), (c, 4)):
            torch.manual_seed(folder is b)  # the global state before the run must not matter
            quietly_fit(tiny_run(seed=seed), folder)
        assert (
            (a / "metrics.jsonl").read_bytes()
            == (b / "metrics.jsonl").read_bytes()
            != (c / "metrics.jsonl").read_bytes()
        )
        weights = [TransformerForSequenceClassification.from_pretrained(f).state_dict() for f in (a, b, c)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        assert not torch.equal(weights[0]["classifier.weight"], weights[2]["classifier.weight"])


# chapters/day05_training.md · `fit`: the whole run
def test_fit_writes_a_folder_that_tells_the_whole_run() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "run")
        printed = quietly_fit(tiny_run(), folder)
        assert sorted(path.name for path in folder.iterdir()) == sorted(RUN_FILES)
        steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
        assert [record["step"] for record in steps] == [1, 3, 5], "3 steps an epoch, every second one logged"
        assert [record["epoch"] for record in epochs] == [1, 2] and printed.count("validation accuracy") == 2
        config, tokenizer, train, validation = prepare(load_config(folder / "config.yaml"))
        model = TransformerForSequenceClassification.from_pretrained(folder)
        again = evaluate(model, make_loader(validation, tokenizer, 256, shuffle=False, seed=0))
        assert asdict(again) == epochs[-1]["validation"], "the saved model is not the one that was validated"
        assert WordTokenizer.load(folder / "tokenizer.json").encode(train.texts[0]) == tokenizer.encode(
            train.texts[0]
        )
        run = json.loads((folder / "run.json").read_text())
        assert run["class"] == "alone" and run["data"][train.source]["sha256"] == checksum(train)
        assert run["tokens_per_second"] > 0 and run["seconds"] > 0


# chapters/day05_training.md · `fit`: the whole run
def test_run_epochs_logs_and_write_provenance_counts() -> None:
    examples = Examples(["a b c d e", "b", "c a", "d e a", "e"], [0, 1, 0, 1, 1], "five texts")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=9)
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(
        ModelConfig(len(tokenizer.vocabulary), d_model=8, num_heads=2, d_ff=12)
    )
    loader = make_loader(examples, tokenizer, 2, shuffle=True, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        log = Path(base, "metrics.jsonl")
        metrics, tokens = run_epochs(
            model, optimizer, loader, loader, TrainingConfig(epochs=2, log_every=3), log
        )
        assert tokens == 2 * sum(len(tokenizer.encode(text)) for text in examples.texts), "real tokens, twice"
        assert [record["step"] for record in read_records(base, "step")] == [1, 4]
        assert metrics.n == 5
        write_provenance(Path(base), tiny_run(seed=5), examples, examples, seconds=(2.0, 1.5), tokens=tokens)
        run = json.loads(Path(base, "run.json").read_text())
        assert (run["seed"], run["tokens_per_second"], run["cpu_seconds"]) == (5, round(tokens / 2), 1.5)
        assert run["data"]["five texts"]["examples"] == 5
