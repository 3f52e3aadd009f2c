# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day07_experiments.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md, chapters/day10_report.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.train`."""

import copy
import hashlib
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minitransformer import config as newest
from minitransformer.config import (
    DataConfig,
    RunConfig,
    SearchConfig,
    TrainingConfig,
    load_config,
    save_config,
)
from minitransformer.data import Examples, load_examples, make_loader
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.model import ModelConfig, TransformerForSequenceClassification, save_shards, weight_files
from minitransformer.runs import (
    RUN_FILES,
    checkpoint_files,
    checksum,
    file_digest,
    in_use,
    load_checkpoint,
    read_predictions,
    read_records,
    save_checkpoint,
)
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer
from minitransformer.train import (
    PARTS,
    ClassificationObjective,
    Monitor,
    Resumable,
    StepResult,
    TrainingState,
    autocast_on,
    average,
    begin,
    choose_autocast,
    choose_device,
    cut,
    depth_of,
    disagreement,
    end_epoch,
    fingerprint,
    finish,
    finite_or_null,
    fit,
    flat,
    flat_weights,
    identity,
    logits_of,
    make_scaler,
    measured_step,
    parameter_groups,
    prepare,
    random_state,
    require_finite,
    restore,
    run_epochs,
    run_record,
    same_run,
    sample,
    search,
    set_learning_rate,
    set_random_state,
    settings_of,
    settled,
    split_batch,
    tensorboard_writer,
    train_epoch,
    train_step,
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


# chapters/day06_engineering.md · Cutting a batch
def small_model(**changes: object) -> TransformerForSequenceClassification:
    """A model in 64 bits with C=12, H=3, V=11."""
    torch.manual_seed(0)
    settings = {"vocab_size": 11, "d_model": 12, "num_heads": 3, "d_ff": 20, "max_length": 9, "dropout": 0.0}
    return TransformerForSequenceClassification(ModelConfig(**settings | changes)).double()


# chapters/day06_engineering.md · Cutting a batch
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


# chapters/day06_engineering.md · `train_step`, complete
def test_train_step_stops_before_nan_reaches_the_weights() -> None:
    for dtype in ("fp32", "fp16"):
        model = small_model().float()
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        scaler = make_scaler(torch.device("cpu"), dtype)
        train_step(model, small_batch(), optimizer, autocast=dtype, scaler=scaler)
        before = [weight.detach().clone() for weight in model.parameters()]
        means = [optimizer.state[weight]["exp_avg"].clone() for weight in model.parameters()]
        sick = model.classifier.register_forward_hook(lambda module, inputs, output: output * torch.nan)
        result = train_step(model, small_batch(), optimizer, 1.0, 17, 1, dtype, scaler)
        sick.remove()
        assert result.skipped and math.isnan(result.loss) and result.step == 17
        for weight, old, mean in zip(model.parameters(), before, means, strict=True):
            assert torch.equal(weight, old), "a weight changed"
            assert torch.equal(optimizer.state[weight]["exp_avg"], mean), "the optimizer saw the NaN"
        again = train_step(model, small_batch(), optimizer, 1.0, 18, 1, dtype, scaler)
        assert not again.skipped and not torch.equal(before[0], next(model.parameters()))
        assert scaler.get_scale() == (2.0**15 if dtype == "fp16" else 1.0), "one skip halves the scale"


# chapters/day06_engineering.md · `train_step`, complete
def test_require_finite_guards_the_gradient_too() -> None:
    model = small_model()
    model.classifier.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = model.classifier.bias.detach().clone()
    result = train_step(model, small_batch(), torch.optim.SGD(model.parameters(), 0.1), step=4)
    assert result.skipped and math.isfinite(result.loss) and not math.isfinite(result.grad_norm)
    assert torch.equal(model.classifier.bias, before), "the weights moved"
    assert StepResult(1, 0.5, 0.1, 2, 3, 13).skipped is False
    require_finite("loss", torch.tensor(1e30), 1)  # large, but a number: no exception
    try:
        require_finite("loss", torch.tensor(torch.inf), 9)
        raise AssertionError("an infinite loss passed")
    except FloatingPointError as error:
        assert "loss is inf at step 9" in str(error)


# chapters/day08_data_schedule_monitoring.md · Watching a run
def test_train_epoch_is_its_steps_in_order() -> None:
    settings = TrainingConfig(learning_rate=0.1, schedule="linear", warmup=0.3, log_every=1)
    state, twin, seen = state_for_watching(), state_for_watching(), []
    state.model.eval()
    train_epoch(state, two_batches(), settings, 6, lambda result, measured: seen.append((result, measured)))
    assert seen == [measured_step(twin, batch, settings, 6) for batch in two_batches()]
    assert [(r.step, r.examples) for r, _ in seen] == [(1, 3), (2, 2)] and state.step == 2
    assert [measured["learning_rate"] for _, measured in seen] == [0.0, 0.05], "2 updates of warm-up"
    assert seen[0][1]["update_ratio"] == 0.0 < seen[1][1]["update_ratio"]
    assert state.model.training, "dropout must be on while training"
    assert torch.equal(flat_weights(state.model), flat_weights(twin.model))
    try:
        train_epoch(state, [], settings, 6)
        raise AssertionError("an empty loader went unnoticed")
    except ValueError as error:
        assert "no batch" in str(error)


# chapters/day08_data_schedule_monitoring.md · Watching a run
def test_train_epoch_drives_few_examples_to_zero_loss() -> None:
    examples = Examples(["a b", "b a", "a a b", "b b a"] * 2, [0, 1, 1, 0] * 2, "words in an order")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=7)
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(
        ModelConfig(len(tokenizer.vocabulary), d_model=24, num_heads=3, d_ff=32, max_length=7, dropout=0.0)
    )
    state = TrainingState(
        model, torch.optim.AdamW(model.parameters()), make_scaler(torch.device("cpu"), "fp32")
    )
    loader, losses = make_loader(examples, tokenizer, 4, shuffle=True, seed=0), []
    settings = TrainingConfig(learning_rate=5e-3, schedule="linear", warmup=0.1)
    for epoch in range(60):
        loader.batch_sampler.set_epoch(epoch)
        train_epoch(state, loader, settings, 120, lambda result, _: losses.append(result.loss))
    assert abs(losses[0] - math.log(2)) < 0.4 and losses[-1] < 0.02, (losses[0], losses[-1])


# chapters/day05_training.md · The flow: train, validate, print
def test_average_weighs_by_examples() -> None:
    steps = [StepResult(1, 0.4, 1.0, correct=3, examples=3, tokens=20), StepResult(2, 2.0, 1.0, 0, 1, 7)]
    metrics = average(steps)
    assert (metrics.n, metrics.accuracy) == (4, 0.75)
    assert math.isclose(metrics.loss, 0.8), "the mean over examples is 0.8, the mean over batches 1.2"


# chapters/day06_engineering.md · Epochs that can be resumed
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


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_fit_gives_the_same_run_for_the_same_seed() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        a, b, c, d = (Path(base, name) for name in "abcd")
        for folder, seed in ((a, 3), (b, 3), (c, 4)):
            torch.manual_seed(folder is b)  # the global state before the run must not matter
            fit(replace(short_run(), seed=seed), folder)
        assert what_a_run_gave(a) == what_a_run_gave(b)
        assert what_a_run_gave(a)[1] != what_a_run_gave(c)[1]
        fit(replace(short_run(tensorboard=True, checkpoint_every=1), seed=3), d)
        assert what_a_run_gave(a) == what_a_run_gave(d), "watching and saving must not change a run"


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_fit_writes_a_folder_that_tells_the_whole_run() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        folder = Path(base, "run")
        metrics = fit(short_run(tensorboard=True), folder)
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        files = {"config.yaml", "run.json", "metrics.jsonl", "predictions.jsonl", "tokenizer.json"}
        files |= {"config.json", "model.safetensors"}
        assert set(names) == files | {"checkpoints", "tensorboard"} and files <= set(RUN_FILES)
        steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
        assert [record["step"] for record in steps] == [1, 3, 5], "3 steps an epoch, every second one logged"
        rates = [record["learning_rate"] for record in steps]
        assert np.allclose(rates, [0.0, 3e-3, 3e-3 * 2 / 4]), "2 updates of warm-up, then down over 4"
        assert [record["epoch"] for record in epochs] == [1, 2] == [1, out.getvalue().count("validation acc")]
        config, tokenizer, train, validation = prepare(load_config(folder / "config.yaml"))
        model = TransformerForSequenceClassification.from_pretrained(folder)
        again = evaluate(model, make_loader(validation, tokenizer, 256))
        assert asdict(again) == epochs[-1]["validation"] == asdict(metrics), "another model was saved"
        assert WordTokenizer.load(folder / "tokenizer.json").encode("a fine plot") == tokenizer.encode(
            "a fine plot"
        )
        run = json.loads((folder / "run.json").read_text())
        assert run["class"] == "alone" and run["data"][train.source]["sha256"] == checksum(train)
        assert run["tokens_per_second"] > 0 and run["seconds"] > 0 and run["steps"] == 6
        logged = [(record["step"], record["loss"]) for record in steps]
        assert np.allclose(curves_in(folder / "tensorboard")["step/loss"], logged), (
            "TensorBoard shows other numbers"
        )


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_run_epochs_logs_and_write_provenance_counts() -> None:
    examples = Examples(["a b c d e", "b", "c a", "d e a", "e"], [0, 1, 0, 1, 1], "five texts")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=9)
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(len(tokenizer.vocabulary), 8, 2, 12))
    state = TrainingState(
        model, torch.optim.SGD(model.parameters()), make_scaler(torch.device("cpu"), "fp32")
    )
    loader, saved = make_loader(examples, tokenizer, 2, shuffle=True, seed=0), []
    settings = TrainingConfig(epochs=2, learning_rate=1e-9, log_every=4, checkpoint_every=2)

    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        run_epochs(state, loader, loader, settings, Path(base), lambda: saved.append(state.step))
        assert saved == [2, 3, 4, 6], "every 2 steps within an epoch of 3, and after each epoch"
        assert loader.batch_sampler.epoch == 3, (
            "set to the second epoch, then read for training and for validation"
        )
        assert state.tokens == 2 * sum(len(tokenizer.encode(t)) for t in examples.texts), "real tokens, twice"
        assert [record["step"] for record in read_records(base, "step")] == [1, 5]
        first, second = read_records(base, "epoch")
        assert [first["epoch"], second["epoch"], first["step"], second["step"]] == [1, 2, 3, 6]
        assert first["train"]["n"] == second["validation"]["n"] == 5
        assert second["validation"] == asdict(evaluate(model, loader))
        finish(Path(base), settings_of_five(), state, tokenizer, examples, examples, loader)
        run = json.loads(Path(base, "run.json").read_text())
        assert run["tokens_per_second"] == round(state.tokens / state.seconds) and run["steps"] == 6
        assert run["data"]["five texts"]["examples"] == 5 and run["seed"] == 5
    assert out.getvalue().count("validation accuracy") == 2


# chapters/day06_engineering.md · Cutting a batch
def uneven_batch() -> dict[str, Tensor]:
    """Seven sentences of 4, 3, 6, 5, 9, 3 and 7 tokens, padded to 9."""
    lengths = (4, 3, 6, 5, 9, 3, 7)
    words = [[4 + (3 * i + j * j) % 7 for j in range(n - 2)] for i, n in enumerate(lengths)]
    ids = torch.tensor([[2, *row, 3, *[0] * (7 - len(row))] for row in words])
    return {
        "input_ids": ids,
        "attention_mask": ids != 0,
        "labels": torch.tensor([1, 0, 0, 1, 1, 0, 1]),
    }


# chapters/day06_engineering.md · Cutting a batch
def test_split_batch_loses_and_repeats_nothing() -> None:
    batch = uneven_batch()
    for parts, sizes in ((1, [7]), (2, [4, 3]), (3, [3, 2, 2]), (7, [1] * 7), (99, [1] * 7)):
        pieces = list(split_batch(batch, parts))
        assert [len(piece["labels"]) for piece in pieces] == sizes, f"{parts} parts"
        words = [ids[ids != 0].tolist() for piece in pieces for ids in piece["input_ids"]]
        assert words == [ids[ids != 0].tolist() for ids in batch["input_ids"]], "a token was lost"
        assert torch.equal(torch.cat([piece["labels"] for piece in pieces]), batch["labels"])
        for piece in pieces:
            assert torch.equal(piece["attention_mask"], piece["input_ids"] != 0)
            assert piece["attention_mask"].any(0).all(), "a column of nothing but padding is left"


# chapters/day06_engineering.md · The same gradient, and how to be sure
def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    batch, whole = uneven_batch(), small_model()
    loss = F.cross_entropy(whole(batch["input_ids"], batch["attention_mask"]), batch["labels"])
    loss.backward()
    for parts in (1, 2, 3, 7, 50):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        result = train_step(model, batch, optimizer, math.inf, micro_batches=parts)
        assert abs(result.loss - loss.item()) < 1e-12, f"{parts} parts: the loss is another one"
        for (name, ours), theirs in zip(model.named_parameters(), whole.parameters(), strict=True):
            off = (ours.grad - theirs.grad).abs().max()
            assert off < 1e-12, f"{parts} parts: the gradient of {name} is off by {off:.1e}"
        right = (whole(batch["input_ids"], batch["attention_mask"]).argmax(-1) == batch["labels"]).sum()
        counts = (result.correct, result.examples, result.tokens)
        assert counts == (right, 7, 37), "the counts are those of the whole batch"


# chapters/day06_engineering.md · Autocast: who computes in which type?
def test_choose_device_takes_the_accelerator_that_is_there() -> None:
    for kind in ("cuda", "mps", "xpu"):
        fakes = {"is_available": True, "current_accelerator": torch.device(kind), "device_count": 2}
        with mock.patch.multiple(
            torch.accelerator, **{n: mock.Mock(return_value=v) for n, v in fakes.items()}
        ):
            assert choose_device("auto").type == kind and choose_device("cpu").type == "cpu"
            assert choose_device(f"{kind}:1") == torch.device(kind, 1)
            no_device(f"{kind}:2")
    with mock.patch.object(torch.accelerator, "is_available", return_value=False):
        assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
        for name in ("cuda", "mps", "tpu"):
            no_device(name)


# chapters/day06_engineering.md · Autocast: who computes in which type?
def no_device(name: str) -> None:
    """`choose_device` must not take a name that is no device here."""
    try:
        choose_device(name)
        raise AssertionError(f"{name} was accepted")
    except ValueError as error:
        assert "training.device must be one of auto, cpu" in str(error) and name in str(error)


# chapters/day06_engineering.md · Autocast: who computes in which type?
def test_autocast_on_and_choose_autocast() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast_on(cpu, name):
            assert (a @ b).dtype == kind, f"{name}: the product came in {(a @ b).dtype}"
        assert (a @ b).dtype == torch.float32, "the context leaks"
    try:
        autocast_on(cpu, "fp8")
        raise AssertionError("a wrong name was accepted")
    except ValueError as error:
        assert re.search("training.autocast must be one of .*fp8", str(error))
    assert choose_autocast(cpu, "auto") in ("bf16", "fp32") and choose_autocast(cuda, "fp32") == "fp32"
    for has, chosen in ((True, "bf16"), (False, "fp16")):
        supported = mock.Mock(return_value=has)
        with mock.patch.multiple(torch.cuda, device=mock.MagicMock(), is_bf16_supported=supported):
            assert choose_autocast(cuda, "auto") == chosen
    assert choose_autocast(torch.device("mps"), "auto") == "fp32"


# chapters/day06_engineering.md · The rescue: scale the loss
def test_make_scaler_scales_fp16_alone() -> None:
    loss = torch.tensor(3.0)
    for dtype, factor in (("fp16", 2.0**16), ("bf16", 1.0), ("fp32", 1.0)):
        assert make_scaler(torch.device("cpu"), dtype).scale(loss).item() == 3.0 * factor, dtype


# chapters/day06_engineering.md · `train_step`, complete
def test_train_step_unscales_before_it_clips() -> None:
    eta, limit = 0.5, 0.01
    for parts in (1, 3):
        model, exact = small_model().float(), small_model().float()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), eta)
        result = train_step(model, uneven_batch(), optimizer, limit, 1, parts, "fp16")
        wanted = train_step(exact, uneven_batch(), torch.optim.SGD(exact.parameters(), eta), limit)
        assert not result.skipped and wanted.grad_norm > 10 * limit, "the test must clip"
        assert math.isclose(result.grad_norm, wanted.grad_norm, rel_tol=0.02), (
            f"norm {result.grad_norm} in fp16, {wanted.grad_norm} in fp32: still scaled?"
        )
        moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
        assert math.isclose(moved.norm().item(), eta * limit, rel_tol=0.01), "not clipped to the limit"


# chapters/day06_engineering.md · `train_step`, complete
def test_train_step_trains_in_every_type() -> None:
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for dtype, kind in kinds.items():
        model, seen = small_model().float(), set()
        model.classifier.register_forward_hook(lambda module, inputs, output, s=seen: s.add(output.dtype))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        scaler = make_scaler(torch.device("cpu"), dtype)
        steps = [train_step(model, uneven_batch(), optimizer, 1.0, i, 2, dtype, scaler) for i in range(1, 31)]
        assert seen == {kind}, f"{dtype}: the logits came in {seen}"
        assert abs(steps[0].loss - math.log(2)) < 0.1, f"{dtype}: {steps[0].loss}"
        assert steps[-1].loss < 0.1, f"{dtype} does not learn: {steps[-1].loss}"
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}


# chapters/day06_engineering.md · What belongs to the state of a run
def test_random_state_holds_the_devices_own_generator() -> None:
    before, first = random_state(torch.device("cpu")), torch.rand(4)
    set_random_state(before, torch.device("cpu"))
    assert torch.equal(torch.rand(4), first) and set(before) == {"cpu"}
    for device, which in ((torch.device("cuda", 1), (torch.device("cuda", 1),)), (torch.device("mps"), ())):
        chip = mock.Mock(**{"get_rng_state.return_value": torch.tensor([7])})
        with mock.patch.object(torch, "get_device_module", return_value=chip):
            state = random_state(device)
            set_random_state(state, device)
            set_random_state(before, device)  # begun on a CPU: nothing to go back to
        chip.get_rng_state.assert_called_once_with(*which)
        chip.set_rng_state.assert_called_once_with(state[device.type], *which)


# chapters/day06_engineering.md · What belongs to the state of a run
def small_state(seed: int = 0, **changes: object) -> TrainingState:
    """A state around a small model in 32 bits, with dropout, so that the random numbers matter."""
    model = small_model(**{"dropout": 0.3} | changes).float()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    return TrainingState(model, optimizer, make_scaler(torch.device("cpu"), "fp16"))


# chapters/day06_engineering.md · What belongs to the state of a run
def test_training_state_counts() -> None:
    state = small_state()
    state.add(StepResult(1, 0.4, 1.0, correct=3, examples=3, tokens=20))
    state.add(StepResult(2, math.nan, math.nan, correct=0, examples=9, tokens=50, skipped=True))
    assert (state.skipped, state.skipped_in_a_row, state.step) == (1, 1, 2)
    state.add(StepResult(3, 2.0, 1.0, correct=0, examples=1, tokens=7))
    assert (state.skipped, state.skipped_in_a_row, state.tokens) == (1, 0, 77)
    metrics = state.end_epoch()
    assert (metrics.n, metrics.accuracy) == (4, 0.75), "the skipped step has no say"
    assert math.isclose(metrics.loss, 0.8), "the mean over examples is 0.8, that over batches 1.2"
    assert math.isnan(state.end_epoch().loss), "the sums start again, and nothing has no mean"


# chapters/day06_engineering.md · What belongs to the state of a run
def test_training_state_goes_on_as_if_nothing_had_happened() -> None:
    def go_on(state: TrainingState, steps: int) -> None:
        for _ in range(steps):
            result = train_step(
                state.model, uneven_batch(), state.optimizer, 1.0, state.step + 1, 2, "fp16", state.scaler
            )
            state.add(result)

    state = small_state()
    go_on(state, 3)
    state.scaler.update(2.0**13)  # as after some skipped steps
    saved = copy.deepcopy(state.state_dict())
    go_on(state, 4)
    other = small_state(seed=99)
    go_on(other, 1)
    other.load_state_dict(saved)
    assert other.step == 3 and other.scaler.get_scale() == 2.0**13
    go_on(other, 4)
    assert isinstance(other, Resumable) and other.loss_sum == state.loss_sum and other.step == 7
    for a, b in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b), "the weights differ"
    try:
        small_state(d_ff=24).load_state_dict(saved)
        raise AssertionError("a state of another model was accepted")
    except ValueError as error:
        assert "does not fit this model" in str(error) and "\n" not in str(error)


# chapters/day06_engineering.md · Only its own run
def test_identity_tells_runs_apart() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b/c": 2, "b/d/e": 3}
    examples = Examples(["a b", "c"], [0, 1], "here")
    ours = identity(tiny_run(), examples, examples)
    same_run(Path("x"), identity(tiny_run(), replace(examples, source="there"), examples), ours)
    device = replace(tiny_run().training, device="cpu")
    same_run(Path("x"), identity(tiny_run(training=device), examples, examples), ours)
    rate = replace(tiny_run().training, learning_rate=4e-3)
    for theirs, words in [
        (
            identity(tiny_run(training=rate), examples, examples),
            "training.learning_rate is 0.004 there, 0.003",
        ),
        (identity(tiny_run(seed=3), examples, examples), "seed is 3 there, 0 here"),
        (
            identity(tiny_run(), replace(examples, labels=[1, 1]), examples),
            "checksum of the training examples",
        ),
        ({}, "belongs to another run"),
    ]:
        try:
            same_run(Path("x"), theirs, ours)
            raise AssertionError(f"{words}: accepted")
        except ValueError as error:
            assert words in str(error) and str(error).startswith("x ")


# chapters/day06_engineering.md · `restore` and `fit`
def test_settled_keeps_what_a_run_began_with() -> None:
    config, mps = tiny_run(training=TrainingConfig(autocast="auto")), torch.device("mps")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        here = settled(config, mps, folder, resume=True)
        assert here.training.autocast == "fp32" and replace(here, training=config.training) == config
        elsewhere = replace(config, training=replace(config.training, autocast="bf16"))
        save_config(elsewhere, folder / "config.yaml")
        assert settled(config, mps, folder, resume=True) == elsewhere
        assert settled(config, mps, folder, resume=False) == here
        assert settled(elsewhere, mps, folder, resume=False) == elsewhere


# chapters/day06_engineering.md · `restore` and `fit`
def dies_at(step: int) -> Any:
    """A context in which the `step`-th training step is interrupted, as by Ctrl-C."""
    clip, calls = nn.utils.clip_grad_norm_, []

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return clip(*arguments)

    return mock.patch.object(nn.utils, "clip_grad_norm_", interrupted)


# chapters/day06_engineering.md · `restore` and `fit`
def run_and_tell(config: RunConfig, folder: Path, **how: bool) -> tuple[str, str]:
    """What a run prints, to standard output and to standard error."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        fit(config, folder, **how)
    return out.getvalue(), err.getvalue()


# chapters/day06_engineering.md · `restore` and `fit`
def result_of(folder: Path) -> tuple[list, list, list, dict[str, Tensor]]:
    """The records, the answers and the weights of a finished run."""
    steps = [(record["step"], record["loss"], record["grad_norm"]) for record in read_records(folder, "step")]
    model = TransformerForSequenceClassification.from_pretrained(folder)
    return steps, read_records(folder, "epoch"), read_predictions(folder), model.state_dict()


# chapters/day06_engineering.md · `restore` and `fit`
def assert_same_result(a: Path, b: Path) -> None:
    """Every record, answer and weight of two runs must be the same to the last bit."""
    (*records, weights), (*others, twins) = result_of(a), result_of(b)
    for name, ours, theirs in zip(("steps", "epochs", "answers"), records, others, strict=True):
        assert ours == theirs, f"the {name} differ"
    for name, value in weights.items():
        assert torch.equal(value, twins[name]), f"{name} differs by {(value - twins[name]).abs().max()}"


# chapters/day06_engineering.md · `restore` and `fit`
THREE_EPOCHS = """
name: tiny
data: {name: toy, train_size: 40}
model: {vocab_size: 500, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}
training: {epochs: 3, batch_size: 16, micro_batches: 2, learning_rate: 3e-3, log_every: 1}
"""


# chapters/day06_engineering.md · `restore` and `fit`
def three_epochs(*overrides: str) -> RunConfig:
    """A tiny run with dropout, three updates an epoch, each in two parts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(THREE_EPOCHS)
        return load_config(path, overrides)


# chapters/day06_engineering.md · `restore` and `fit`
def test_fit_resumes_to_the_same_bits() -> None:
    with tempfile.TemporaryDirectory() as base:
        for autocast in ("fp32", "fp16"):
            config = three_epochs("--training.autocast", autocast)
            whole, broken = Path(base, f"whole {autocast}"), Path(base, f"broken {autocast}")
            run_and_tell(config, whole)
            for step in (5, 2):  # in the second epoch; then again, in the same one
                try:
                    with dies_at(step):
                        run_and_tell(config, broken, resume=True)
                    raise AssertionError("the run was not interrupted")
                except KeyboardInterrupt:
                    assert [p.name for p in checkpoint_files(broken)] == ["step_00000003.safetensors"]
            torch.manual_seed(123)  # the global state must not matter
            out, err = run_and_tell(config, broken, resume=True)
            assert "going on after step 3" in out and not err
            assert_same_result(whole, broken)
            out, _ = run_and_tell(config, broken, resume=True)
            assert "is finished" in out, "a finished run is not run again"


# chapters/day06_engineering.md · `restore` and `fit`
def test_restore_falls_back_to_the_previous_checkpoint() -> None:
    config = three_epochs()
    with tempfile.TemporaryDirectory() as base:
        whole = Path(base, "whole")
        run_and_tell(config, whole)
        for damage in ("cut", "foreign", "other run"):
            folder = shutil.copytree(whole, Path(base, damage))
            (folder / "run.json").unlink()
            newest = checkpoint_files(folder)[-1]
            if damage == "cut":
                newest.write_bytes(newest.read_bytes()[:-7])
            elif damage == "foreign":
                shutil.copy(folder / "model.safetensors", newest)
            else:
                save_checkpoint(folder, 9, load_checkpoint(newest) | {"identity": {"seed": 8}})
            out, err = run_and_tell(config, folder, resume=True)
            assert err.count("\n") == 1 and err.startswith(f"warning: {newest}"), err
            assert "going on after step 6" in out, "the previous checkpoint was not used"
            assert_same_result(whole, folder)


# chapters/day06_engineering.md · `restore` and `fit`
def test_fit_refuses_to_go_on_with_another_run() -> None:
    config, changed = three_epochs(), three_epochs("--training.learning_rate", "4e-3")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "run")
        run_and_tell(config, folder)
        for finished in (True, False):
            if not finished:
                (folder / "run.json").unlink()
            try:
                run_and_tell(changed, folder, resume=True)
                raise AssertionError("a run with another learning rate was continued")
            except ValueError as error:
                assert "training.learning_rate is 0.003 there, 0.004 here" in str(error), error
        cut(folder / "metrics.jsonl", 10)
        assert (folder / "metrics.jsonl").stat().st_size == 10
        state = begin(config, torch.device("cpu"))
        with redirect_stderr(StringIO()) as err:
            try:
                restore(folder, state, {})
                raise AssertionError("no checkpoint fits, and restore went on")
            except ValueError as error:
                assert "--overwrite" in str(error) and err.getvalue().count("warning: ") == 2
        assert restore(Path(base, "empty"), state, {}) is False


# chapters/day06_engineering.md · `restore` and `fit`
def test_fit_stops_after_skips_in_a_row() -> None:
    def broken(*arguments: Any) -> Tensor:
        return torch.tensor(torch.nan)

    with tempfile.TemporaryDirectory() as base, mock.patch.object(nn.utils, "clip_grad_norm_", broken):
        try:
            run_and_tell(three_epochs("--training.max_skipped", "4"), Path(base, "run"))
            raise AssertionError("nine bad steps in a row went unnoticed")
        except FloatingPointError as error:
            assert "4 steps in a row" in str(error) and "step 4 (loss 0." in str(error), error
            assert "gradient norm nan" in str(error)
        skipped = read_records(Path(base, "run"), "skipped")
        assert [record["step"] for record in skipped] == [1, 2, 3, 4], "every skipped step is recorded"


# chapters/day07_experiments.md · Running it, and running it again
def test_search_trains_each_run_once() -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = "name: b\ndata: {name: toy, train_size: 20}\nmodel: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}\n"
        Path(folder, "base.yaml").write_text(text, encoding="utf-8")
        variants = {"plain": {}, "fast": {"training.learning_rate": 1e-2}}
        plan = SearchConfig("s", str(Path(folder, "base.yaml")), [3, 4], variants)
        runs = Path(folder, "runs")
        search(plan, runs, seeds=[4])
        assert sorted(path.name for path in runs.iterdir()) == ["fast_seed4", "plain_seed4"]
        written = {path: path.stat().st_mtime_ns for path in runs.glob("*/model.safetensors")}
        search(plan, runs)
        assert len(list(runs.glob("*/run.json"))) == 4
        assert all(path.stat().st_mtime_ns == then for path, then in written.items()), "trained twice"
        assert load_config(runs / "fast_seed3" / "config.yaml").training.learning_rate == 1e-2
        other = replace(plan, variants={"fast": {"training.learning_rate": 2e-2}})
        try:
            search(other, runs)
            raise AssertionError("the runs of another plan were taken for this one's")
        except ValueError as error:
            assert "learning_rate" in str(error) and "0.02" in str(error)


# chapters/day08_data_schedule_monitoring.md · In the training script
def test_set_learning_rate_reaches_every_group() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(2))]}, {"params": [nn.Parameter(torch.zeros(3))]}]
    optimizer = torch.optim.AdamW(groups, lr=9.0)
    settings = TrainingConfig(learning_rate=0.5, schedule="linear", warmup=0.15)
    rates = [set_learning_rate(optimizer, settings, step, total=10) for step in range(11)]
    warm = [0.0, 0.25]  # 0.15 of 10 updates, rounded up, are 2
    assert np.allclose(rates, warm + [0.5 * (10 - s) / 8 for s in range(2, 11)], rtol=0, atol=1e-12), rates
    set_learning_rate(optimizer, settings, 6, total=10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    assert set_learning_rate(optimizer, TrainingConfig(learning_rate=0.5), 999, total=1000) == 0.5


# chapters/day08_data_schedule_monitoring.md · Watching a run
def state_for_watching(rate: float = 0.3) -> TrainingState:
    """A state with a model in 64 bits (C=12, H=3, V=11) and plain SGD."""
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=11, d_model=12, num_heads=3, d_ff=20, max_length=9, dropout=0.0)
    model = TransformerForSequenceClassification(config).double()
    return TrainingState(
        model, torch.optim.SGD(model.parameters(), rate), make_scaler(torch.device("cpu"), "fp32")
    )


# chapters/day08_data_schedule_monitoring.md · Watching a run
def two_batches() -> list[dict[str, Tensor]]:
    """Three sentences of 6, 4 and 3 tokens, then the last two of them alone."""
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0], [2, 10, 3, 0, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([1, 0, 1])}
    return [batch, {name: value[1:] for name, value in batch.items()}]


# chapters/day08_data_schedule_monitoring.md · Watching a run
def test_measured_step_measures_what_sgd_does() -> None:
    state, batch = state_for_watching(), two_batches()[0]
    settings = TrainingConfig(learning_rate=0.4, schedule="linear", max_grad_norm=math.inf, log_every=2)
    start = flat_weights(state.model)
    result, seen = measured_step(state, batch, settings, total=8)
    assert torch.equal(start, flat_weights(state_for_watching().model)), "flat_weights must be a copy"
    assert seen["learning_rate"] == 0.4 and math.isclose(seen["weight_norm"], start.norm().item())
    expected = 0.4 * result.grad_norm / start.norm().item()
    assert math.isclose(seen["update_ratio"], expected, rel_tol=1e-9), (seen, expected)
    result, seen = measured_step(state, batch, settings, total=8)
    assert (seen, result.step, state.step, state.tokens) == ({}, 2, 2, 26), (
        "only every second step is measured"
    )
    *_, seen = measured_step(state, batch, settings, total=8)
    assert math.isclose(seen["learning_rate"], 0.4 * 6 / 8), "the rate follows the schedule"


# chapters/day08_data_schedule_monitoring.md · Watching a run
def test_train_epoch_stops_after_skips_in_a_row() -> None:
    state, settings = state_for_watching(), TrainingConfig(max_skipped=4, log_every=1)
    before, seen = flat_weights(state.model), []
    sick = state.model.classifier.register_forward_hook(lambda module, inputs, output: output * torch.nan)
    try:
        train_epoch(state, two_batches() * 5, settings, 11, lambda *step: seen.append(step))
        raise AssertionError("ten bad steps in a row went unnoticed")
    except FloatingPointError as error:
        assert "4 steps in a row" in str(error) and "step 4 (loss nan" in str(error), error
    assert torch.equal(before, flat_weights(state.model)) and state.skipped == state.step == len(seen) == 4
    assert all(result.skipped and measured["update_ratio"] == 0.0 for result, measured in seen)
    sick.remove()
    train_epoch(state, two_batches(), settings, 11)
    assert state.skipped_in_a_row == 0 and state.skipped == 4, "a good step ends the row"


# chapters/day08_data_schedule_monitoring.md · Where the records go
def curves_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in TensorBoard's files below a folder, as (step, value), read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = EventAccumulator(str(folder))
    with redirect_stderr(StringIO()):  # it reports what it leaves out
        files.Reload()
    return {tag: [(e.step, e.value) for e in files.Scalars(tag)] for tag in files.Tags()["scalars"]}


# chapters/day08_data_schedule_monitoring.md · Where the records go
def test_tensorboard_writer_forgets_what_came_after_the_checkpoint() -> None:
    with tempfile.TemporaryDirectory() as base:
        for first, value in ((1, 1.0), (4, 2.0)):  # killed after step 5, resumed after step 3
            writer = tensorboard_writer(Path(base), step=first - 1)
            for step in range(first, 6 if first == 1 else 7):
                writer.add_scalar("step/loss", value, step)
            writer.close()
        expected = [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]
        assert curves_in(Path(base)) == {"step/loss": expected}
        with patch.dict(sys.modules, {"torch.utils.tensorboard": None}):  # as if it were not installed
            try:
                tensorboard_writer(Path(base), 0)
                raise AssertionError("a missing TensorBoard went unnoticed")
            except ValueError as error:
                assert "pip install tensorboard" in str(error)


# chapters/day08_data_schedule_monitoring.md · Where the records go
def test_finite_or_null_leaves_a_file_that_anyone_can_read() -> None:
    values = {"a": 1.5, "b": {"c": math.nan, "d": -math.inf, "e": 3}, "f": None, "g": True}
    assert finite_or_null(values) == {"a": 1.5, "b": {"c": None, "d": None, "e": 3}, "f": None, "g": True}


# chapters/day08_data_schedule_monitoring.md · Where the records go
class Terminal(StringIO):
    """A text stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


# chapters/day08_data_schedule_monitoring.md · Where the records go
def monitor_three_steps(folder: Path, tensorboard: bool, stream: StringIO) -> None:
    """Two steps, the first of them measured, then a skipped one, and an epoch's record."""
    with redirect_stderr(stream):
        monitor = Monitor(folder, tensorboard, step=4, total=9)
        seen = {"learning_rate": 0.5, "weight_norm": 3.0, "update_ratio": 0.25}
        monitor.step(StepResult(5, 0.75, 1.5, 2, 3, 13), seen, accuracy=2 / 3)
        monitor.step(StepResult(6, 0.5, 1.25, 3, 3, 12), {}, accuracy=5 / 6)
        monitor.step(StepResult(7, math.nan, math.inf, 0, 3, 12, skipped=True), {}, accuracy=5 / 6)
        monitor.record("epoch", 7, {"epoch": 1, "validation": {"accuracy": 0.5}})
        monitor.bar.refresh()
        monitor.close()


# chapters/day08_data_schedule_monitoring.md · Where the records go
def test_monitor_shows_a_bar_on_a_terminal_and_nothing_else_elsewhere() -> None:
    with tempfile.TemporaryDirectory() as base:
        for stream in (Terminal(), StringIO()):
            monitor_three_steps(Path(base), False, stream)
            bar = stream.getvalue().rpartition("\r")[2] or stream.getvalue()
            if not stream.isatty():
                assert bar == "", f"no terminal, but it wrote {bar!r}"
                continue
            for word in ("7/9", "loss nan", "accuracy 83.3 %", "tokens/s", "<", "step"):
                assert word in stream.getvalue(), f"{word!r} is missing in {bar!r}"


# chapters/day08_data_schedule_monitoring.md · Where the records go
def test_monitor_writes_the_same_numbers_to_both_places() -> None:
    with tempfile.TemporaryDirectory() as base:
        monitor_three_steps(Path(base), True, StringIO())
        (step,), (skipped,), (epoch,) = (read_records(base, kind) for kind in ("step", "skipped", "epoch"))
        assert step.pop("tokens_per_second") > 0
        assert step == {
            "kind": "step",
            "step": 5,
            "loss": 0.75,
            "grad_norm": 1.5,
            "learning_rate": 0.5,
            "weight_norm": 3.0,
            "update_ratio": 0.25,
        }
        assert skipped == {"kind": "skipped", "step": 7, "loss": None, "grad_norm": None}
        assert epoch == {"kind": "epoch", "step": 7, "epoch": 1, "validation": {"accuracy": 0.5}}
        curves = curves_in(Path(base, "tensorboard"))
        assert curves["step/loss"] == [(5, 0.75)] and curves["step/update_ratio"] == [(5, 0.25)]
        assert curves["epoch/validation/accuracy"] == [(7, 0.5)]
        assert math.isnan(curves["skipped/loss"][0][1]), "TensorBoard can show that a value is no number"


# chapters/day08_data_schedule_monitoring.md · The run, put together
def settings_of_five() -> RunConfig:
    return RunConfig("five", newest.DataConfig("toy"), ModelConfig(vocab_size=50), seed=5)


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_end_epoch_records_and_starts_the_sums_again() -> None:
    state, batches = state_for_watching(), two_batches()
    state.examples, state.correct, state.loss_sum, state.skipped = 8, 6, 4.0, 3
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        monitor = Monitor(Path(base))
        end_epoch(state, batches, monitor, epoch=2, epochs=5)
        monitor.close()
        (record,) = read_records(base, "epoch")
    assert record["train"] == {"n": 8, "accuracy": 0.75, "loss": 0.5} and record["epoch"] == 2
    assert record["validation"] == asdict(evaluate(state.model, batches))
    assert (state.examples, state.correct, state.loss_sum) == (0, 0, 0.0)
    assert "epoch 2/5: training loss 0.500" in out.getvalue() and "3 steps skipped" in out.getvalue()


# chapters/day08_data_schedule_monitoring.md · The run, put together
def short_run(**training: object) -> RunConfig:
    """A run of a second: 40 toy reviews, 3 steps an epoch, a model with C=8 and one layer."""
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "log_every": 2, "schedule": "linear"}
    return RunConfig(
        name="short",
        data=newest.DataConfig("toy", train_size=40, group_by_length=True),
        model=ModelConfig(vocab_size=500, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24),
        training=newest.TrainingConfig(**settings | {"warmup": 0.2} | training),
    )


# chapters/day08_data_schedule_monitoring.md · The run, put together
def what_a_run_gave(folder: Path) -> tuple[list[dict], bytes, bytes]:
    """All records without the measured speed, the weights and the answers: equal runs give equal values."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in lines]
    return records, (folder / "model.safetensors").read_bytes(), (folder / "predictions.jsonl").read_bytes()


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_fit_trains_on_the_batches_of_its_seed_and_epochs() -> None:
    seen: list[list[list[int]]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, TransformerForSequenceClassification) and module.training:
            seen.append(inputs[0].tolist())

    config, expected = replace(short_run(), seed=3), []
    hook = register_module_forward_pre_hook(note)
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        fit(config, Path(base, "run"))
    hook.remove()
    _, tokenizer, train, _ = prepare(config)
    loader = make_loader(train, tokenizer, 16, True, seed=3, group_by_length=True)
    for epoch in (0, 1):
        loader.batch_sampler.set_epoch(epoch)
        expected += [batch["input_ids"].tolist() for batch in loader]
    assert seen == expected and len(seen) == 6


# chapters/day08_data_schedule_monitoring.md · The run, put together
def interrupted_fit(config: RunConfig, folder: Path, after: int, resume: bool = False) -> None:
    """Run `fit`, and stop it as Ctrl-C would, when `after` forward passes of training are done."""
    count = 0

    def stop(module: nn.Module, inputs: object) -> None:
        nonlocal count
        if isinstance(module, TransformerForSequenceClassification) and module.training:
            count += 1
            if count > after:
                raise KeyboardInterrupt

    hook = register_module_forward_pre_hook(stop)
    try:
        fit(config, folder, resume=resume)
        raise AssertionError("the run ended before it could be interrupted")
    except KeyboardInterrupt:
        pass
    finally:
        hook.remove()


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_fit_resumes_in_the_middle_of_an_epoch_bit_for_bit() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        config, whole = short_run(checkpoint_every=2, micro_batches=2), Path(base, "whole")
        fit(config, whole)
        for after in (1, 4, 5, 6, 9, 11):  # of 12 forward passes, 2 a step
            folder = Path(base, str(after))
            interrupted_fit(config, folder, after)
            assert not (folder / "run.json").exists()
            fit(config, folder, resume=True)
            assert what_a_run_gave(folder) == what_a_run_gave(whole), f"interrupted after {after} passes"
        resumed = [line.split()[-1] for line in out.getvalue().splitlines() if line.startswith("going on")]
        assert resumed == ["2", "2", "3", "4", "4"], f"resumed after the steps {resumed}"


# chapters/day08_data_schedule_monitoring.md · The run, put together
def test_identity_lets_a_run_save_more_often_but_not_learn_faster() -> None:
    examples = Examples(["a"], [1], "one text")
    ours = identity(short_run(), examples)
    assert ours == identity(short_run(checkpoint_every=7, tensorboard=True, device="cpu"), examples)
    for changes in ({"warmup": 0.3}, {"schedule": "constant"}, {"batch_size": 8}, {"log_every": 3}):
        assert identity(short_run(**changes), examples) != ours, changes
    ungrouped = replace(short_run(), data=newest.DataConfig("toy", train_size=40))
    assert identity(ungrouped, examples) != ours, "another order of the batches is another run"
    assert identity(short_run(), Examples(["b"], [1], "one text")) != ours
    assert ours["training/schedule"] == "linear" and ours["checksum of the training examples"] == checksum(
        examples
    )


# chapters/day09_sprint.md · One loop, two objectives
def test_the_loop_takes_any_objective():
    class Counting:
        """An objective that only counts."""

        def update(self, state: Any, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
            return StepResult(state.step + 1, 0.5, 1.0, 1, 2, 3)

        def evaluate(self, model: nn.Module, loader: Iterable) -> Metrics:
            return Metrics(7, 3 / 7, 0.25)

    model = nn.Linear(2, 2)
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "fp32")
    )
    examples = Examples(["a film", "a cast", "a plot"] * 3, [0, 1, 0] * 3, "made up")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), 8)
    loader, settings = make_loader(examples, tokenizer, 4), TrainingConfig(epochs=2, schedule="linear")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        run_epochs(state, loader, loader, settings, Path(folder), lambda: None, Counting())
        epochs = read_records(folder, "epoch")
    assert state.step == 6 and state.tokens == 18
    assert [e["validation"] for e in epochs] == [{"n": 7, "accuracy": 3 / 7, "loss": 0.25}] * 2
    assert epochs[0]["train"] == {"n": 6, "accuracy": 0.5, "loss": 0.5}
    train_epoch(state, loader, settings, 9, None, Counting())
    assert state.step == 9
    rate = set_learning_rate(state.optimizer, settings, 3, 6)
    assert rate == 0.5 * settings.learning_rate == state.optimizer.param_groups[0]["lr"]


# chapters/day09_sprint.md · One loop, two objectives
def test_end_epoch_records_the_outcome():
    """The average is validated, where there is one, and the sums of the epoch start again."""

    class Naming:
        def evaluate(self, model: nn.Module, loader: Iterable) -> Metrics:
            return Metrics(1, 1.0, model.weight.item())

    model = nn.Linear(1, 1, bias=False)
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "fp32")
    )
    state.averaged = AveragedModel(nn.Linear(1, 1, bias=False))
    nn.init.constant_(state.averaged.module.weight, 7.0)
    state.examples, state.correct, state.loss_sum, state.step = 4, 3, 2.0, 9
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        monitor = Monitor(Path(folder))
        end_epoch(state, [], monitor, 1, 2, Naming())
        monitor.close()
        record = read_records(folder, "epoch")[0]
    assert record["train"] == {"n": 4, "accuracy": 0.75, "loss": 0.5} and state.examples == 0
    assert record["validation"]["loss"] == 7.0 and record["step"] == 9


# chapters/day09_sprint.md · One loop, two objectives
def test_classification_is_the_default():
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(9, 8, 2, 12, num_layers=1, dropout=0.0))
    batch = {"input_ids": torch.tensor([[2, 7, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.bool)}
    batch["labels"] = torch.tensor([1])
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "fp32")
    )
    expected = F.cross_entropy(model(batch["input_ids"]), batch["labels"]).item()
    result, measured = measured_step(state, batch, TrainingConfig(), 10)
    assert math.isclose(result.loss, expected, rel_tol=1e-6) and measured["update_ratio"] > 0
    assert asdict(ClassificationObjective().evaluate(model, [batch])) == asdict(evaluate(model, [batch]))


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_run_record_and_settings():
    model = nn.Linear(2, 2)
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "fp32")
    )
    state.step, state.tokens, state.seconds = 5, 1000, 4.0
    record = run_record("x", "read", 3, {"made up": {}}, state, "fp32")
    assert (record["class"], record["steps"], record["tokens_per_second"]) == ("read", 5, 250)
    settings = settings_of(TrainingHolder(TrainingConfig(device="cpu")))
    assert settings == settings_of(TrainingHolder(TrainingConfig(device="auto", checkpoint_every=7)))
    assert settings == settings_of(TrainingHolder(TrainingConfig(compile=True))), "how, not what"
    assert settings != settings_of(TrainingHolder(TrainingConfig(epochs=9)))


# chapters/day09_sprint.md · The settings of a reading, and the run
@dataclass(frozen=True)
class TrainingHolder:
    """The least that `settings_of` takes."""

    training: TrainingConfig


# chapters/day09_sprint.md · Layers that move less
def test_layer_decay_scales_the_rate():
    model = TransformerForSequenceClassification(ModelConfig(31, 8, 2, 12, num_layers=2))
    groups = parameter_groups(model, 2, 0.5)
    assert [group["scale"] for group in groups] == [0.125, 0.25, 0.5, 1.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert any(p is model.encoder.embedding.weight for p in groups[0]["params"])
    assert any(p is model.classifier.weight for p in groups[3]["params"])
    optimizer = torch.optim.AdamW(groups, 1.0)
    assert set_learning_rate(optimizer, TrainingConfig(learning_rate=0.8), 0, 10) == 0.8
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2, 0.4, 0.8]
    assert depth_of("encoder.norm.weight", 2) == 3 and depth_of("encoder.layers.1.norm1.bias", 2) == 2


# chapters/day09_sprint.md · An average of the weights
def test_a_run_repeats_whole_sentences_but_counts_words_once():
    once = RunConfig("x", DataConfig("toy", train_size=50, min_frequency=8), ModelConfig(500, 8, 2, 12))
    often = replace(once, data=replace(once.data, sentences=3))
    (first, tokenizer, before, _), (second, other, after, _) = prepare(once), prepare(often)
    assert after.texts == before.texts + 2 * after.texts[50 : 50 + (len(after) - 50) // 2]
    assert len(after) > 50 and set(after.texts) == set(before.texts)
    assert tokenizer.vocabulary.tokens == other.vocabulary.tokens and first.model == second.model
    counted = Vocabulary.from_texts(after.texts, min_frequency=8, max_size=500)
    assert len(counted) > len(other.vocabulary), "or the line above could not fail"


# chapters/day09_sprint.md · An average of the weights
def test_search_passes_over_what_others_are_at() -> None:
    changes: dict[str, str | int | float | bool] = {"training.epochs": 1, "data.train_size": 64}
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        Path(base, "base.yaml").write_text(
            "name: b\ndata: {name: toy}\nmodel: {vocab_size: 300, d_model: 8}\n"
        )
        plan = SearchConfig("two", str(Path(base, "base.yaml")), [1], {"a": changes, "b": changes})
        with in_use(Path(base, "a_seed1")), redirect_stderr(StringIO()) as said:
            search(plan, base)
        assert said.getvalue().startswith("passed over: ") and Path(base, "b_seed1", "run.json").exists()
        assert not Path(base, "a_seed1", "run.json").exists()


# chapters/day09_sprint.md · An average of the weights
def one_weight(ema: float) -> TrainingState:
    """A state whose model is one weight of 1, and an average of it."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    return TrainingState(model, optimizer, make_scaler(torch.device("cpu"), "fp32"), averaged=averaged)


# chapters/day09_sprint.md · An average of the weights
def grow(state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
    """An update that adds 1 to the weight, and is skipped where the batch says so."""
    if not batch["skip"]:
        state.model.weight.data += 1
    return StepResult(state.step + 1, 0.0, 0.0, 0, 1, 1, bool(batch["skip"]))


# chapters/day09_sprint.md · An average of the weights
def test_ema_follows_the_weights():
    state, objective = one_weight(0.75), type("Growing", (), {"update": staticmethod(grow)})()
    settings = TrainingConfig(learning_rate=1.0, max_grad_norm=math.inf)
    found = []
    for skip in (False, False, True, False):
        measured_step(state, {"skip": torch.tensor(skip)}, settings, 9, objective)
        found.append(state.outcome.weight.item())
    assert found == [2.0, 2.25, 2.25, 2.6875], (
        "2, then 3/4 · 2 + 1/4 · 3, a skipped step, 3/4 · 2.25 + 1/4 · 4"
    )
    assert state.model.weight.item() == 4.0 and state.outcome is not state.model
    twin = one_weight(0.75)
    twin.load_state_dict(state.state_dict())
    for each in (state, twin):
        measured_step(each, {"skip": torch.tensor(False)}, settings, 9, objective)
    assert twin.outcome.weight.item() == state.outcome.weight.item() == 0.75 * 2.6875 + 0.25 * 5


# chapters/day09_sprint.md · An average of the weights
def test_state_with_an_average():
    state = one_weight(0.9)
    plain = Resumable(state.model, state.optimizer, state.scaler)
    assert state.parts() == [*PARTS] and plain.parts() == ["model", "optimizer", "scaler"]
    assert plain.outcome is plain.model
    torch.manual_seed(3)
    cpu = torch.device("cpu")
    before, first = random_state(cpu), torch.rand(4)
    set_random_state(before, cpu)
    assert torch.equal(torch.rand(4), first)
    plain.load_state_dict({**plain.state_dict(), "counts": {}})
    try:
        state.load_state_dict(plain.state_dict())
        raise AssertionError("a checkpoint without an average")
    except ValueError as error:
        assert "the checkpoint does not fit this model: 'averaged'" in str(error)


# chapters/day09_sprint.md · An average of the weights
def test_a_run_ends_with_the_average():
    size = ModelConfig(60, 8, 2, 12, num_layers=1, max_length=24)
    config = RunConfig("run", DataConfig("toy", train_size=64), size, TrainingConfig(batch_size=16, ema=0.5))
    config, tokenizer, train, validation = prepare(config)
    state = begin(config, torch.device("cpu"))
    loader, measuring = make_loader(train, tokenizer, 16), make_loader(validation, tokenizer, 256)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        run_epochs(state, loader, measuring, config.training, Path(folder), lambda: None)
        finish(Path(folder), config, state, tokenizer, train, validation, measuring)
        saved = load_file(Path(folder, "model.safetensors"))
        record = read_records(folder, "epoch")[-1]["validation"]
    assert all(torch.equal(saved[name], value) for name, value in state.outcome.state_dict().items())
    assert not torch.equal(saved["classifier.weight"], state.model.classifier.weight)
    assert record == asdict(evaluate(state.outcome, measuring)), "it is the average that is validated"


# chapters/day09_sprint.md · Two passes that agree
def test_r_drop():
    first, second = (torch.tensor([[p, 1 - p]]).log() for p in (0.9, 0.6))
    by_hand = (0.9 * math.log(1.5) + 0.1 * math.log(0.25) + 0.6 * math.log(2 / 3) + 0.4 * math.log(4)) / 2
    assert abs(disagreement(first, second).item() - by_hand) < 1e-6 and abs(by_hand - 0.269) < 5e-4
    assert disagreement(first, first).item() == 0 and disagreement(first, second + 7) == disagreement(
        second, first
    )

    batch = next(
        iter(make_loader(load_examples("toy", "train"), WordTokenizer(Vocabulary(SPECIAL_TOKENS)), 8))
    )
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(5, 16, 2, 32, 1, 32, dropout=0.3)).train()
    parts = list(split_batch(batch, 2))
    torch.manual_seed(1)
    total = torch.zeros(())
    for part in parts:
        one, two = (logits_of(model, part, "fp32") for _ in range(2))
        labels = part["labels"]
        total = total + (F.cross_entropy(one, labels) + F.cross_entropy(two, labels)) / 2 * len(labels) / 8
        p, q = one.softmax(-1), two.softmax(-1)
        total = total + 3 * ((p - q) * (p / q).log()).sum() / 2 / 8  # both directions at once
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(total, list(model.parameters()))]).norm()
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    result = train_step(model, batch, optimizer, math.inf, micro_batches=2, r_drop=3.0)
    assert abs(result.grad_norm / expected.item() - 1) < 1e-4 and result.loss < total.item()
    assert result.tokens == int(batch["attention_mask"].sum()), "tokens of the batch count once"
    assert logits_of(model, batch, "bf16").dtype == torch.float32


# chapters/day10_report.md · Weights that fit into a repository
def test_a_run_starts_from_shards() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = save_shards({"a": torch.ones(300), "b": torch.zeros(300)}, folder, 1300)
        content = b"".join(file.read_bytes() for file in files)
        assert weight_files(folder / "model.safetensors") == files and weight_files(files[0]) == files[:1]
        found = file_digest(folder / "model.safetensors")
        assert found["file"] == "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors"
        assert found["sha256"] == hashlib.sha256(content).hexdigest()
        assert fingerprint(folder, "model.safetensors") == {"folder": folder.name, **found}


# chapters/day11_deeper.md · What BERT has and our encoder lacked
def test_depth_of_bert_s_parts():
    config = ModelConfig(9, 8, 2, 16, 3, embedding_norm=True, type_vocab_size=2)
    model = TransformerForSequenceClassification(config)
    found: dict[int, set[str]] = {}
    for name, _ in model.named_parameters():
        found.setdefault(depth_of(name, 3), set()).add(name.split(".")[1])
    assert found[0] == {"embedding", "positions", "token_types", "embedding_norm"}
    assert found[1] == found[2] == found[3] == {"layers"}
    assert found[4] == {"norm", "weight", "bias"}, "the last norm and the classifier"
    groups = parameter_groups(model, 3, 0.5)
    assert [group["scale"] for group in groups] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
