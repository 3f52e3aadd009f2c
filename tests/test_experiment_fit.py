# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.fit`."""

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minitransformer.data import Examples, make_loader
from minitransformer.encoder import TransformerEncoder
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.experiment.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from minitransformer.experiment.fit import (
    _begin,
    _end_epoch,
    _finish,
    _measured_step,
    _Monitor,
    _run_epochs,
    _run_record,
    _set_learning_rate,
    _settled,
    _tensorboard_writer,
    _within_minutes,
    fit,
)
from minitransformer.experiment.folder import (
    _file_digest,
    _origin,
    _write_json,
    checkpoint_files,
    checksum,
    last_validation,
    load_run,
    read_predictions,
    read_records,
    read_run_record,
)
from minitransformer.experiment.job import Classification, Job, _finished_identity, _prepare, identity
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    _save_settings,
    read_settings,
)
from minitransformer.model import ModelConfig, TransformerForMaskedLM, TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer, load_tokenizer
from minitransformer.train import StepResult, _flat_weights, make_scaler


# chapters/workshop_runs.md · The loop
def state_around(model: nn.Module, **more: Any) -> TrainingState:
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    scaler = make_scaler(torch.device("cpu"), "fp32")
    return TrainingState(model, optimizer, scaler, **more)


def job_of_five(batch: int = 2, **training: object) -> Job:
    """Five texts in batches of two or another size, two epochs."""
    texts = ["a b c d e", "b", "c a", "d e a", "e"]
    examples = Examples(texts, [0, 1, 0, 1, 1], "five texts")
    tokenizer = WordTokenizer(Vocabulary.from_texts(texts), max_length=9)
    size = ModelConfig(len(tokenizer.vocabulary), 8, 2, 12)
    settings = TrainingConfig(epochs=2, **training)
    config = RunConfig("five", DataConfig("toy"), size, settings, seed=5)
    loader = make_loader(examples, tokenizer, batch, shuffle=True, seed=0)
    data = {"source": "five texts", "examples": 5, "sha256": checksum(examples)}
    data = {"training": data, "validation": data}
    judging = make_loader(examples, tokenizer, 3)
    return Job(config, tokenizer, data, loader, judging, Classification())


def test_the_loop_takes_any_objective() -> None:
    class Counting:
        """An objective that only counts."""

        def update(self, state: Any, batch: Any, settings: Any) -> StepResult:
            return StepResult(state.step + 1, 0.5, 1.0, 1, 2, 3)

        def evaluate(self, model: nn.Module, loader: Iterable) -> Metrics:
            return Metrics(7, 3 / 7, 0.25)

    state, saved = state_around(nn.Linear(2, 2)), []
    job = replace(job_of_five(log_every=4, checkpoint_every=2), objective=Counting())
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as out:
        _run_epochs(state, job, Path(folder), lambda: saved.append(state.step))
        epochs, steps = read_records(folder, "epoch"), read_records(folder, "step")
    assert state.step == 6 and state.tokens == 18, "two epochs of three batches"
    assert saved == [2, 3, 4, 6], "every 2 steps within an epoch, and after each"
    assert [record["step"] for record in steps] == [1, 5]
    assert [(e["epoch"], e["step"]) for e in epochs] == [(1, 3), (2, 6)]
    assert all(e["validation"] == asdict(Metrics(7, 3 / 7, 0.25)) for e in epochs)
    assert epochs[0]["train"] == {"n": 6, "accuracy": 0.5, "loss": 0.5}
    assert out.getvalue().count("validation accuracy") == 2


def test_set_learning_rate_reaches_every_group() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(n))]} for n in (2, 3)]
    optimizer = torch.optim.AdamW(groups, lr=9.0)
    settings = TrainingConfig(learning_rate=0.5, schedule="linear", warmup=0.15)
    rates = [_set_learning_rate(optimizer, settings, step, 10) for step in range(11)]
    warm = [0.0, 0.25]  # 0.15 of 10 updates, rounded up, are 2
    expected = warm + [0.5 * (10 - s) / 8 for s in range(2, 11)]
    assert np.allclose(rates, expected, rtol=0, atol=1e-12), rates
    _set_learning_rate(optimizer, settings, 6, 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    constant = TrainingConfig(learning_rate=0.5)
    assert _set_learning_rate(optimizer, constant, 999, 1000) == 0.5


def test_measured_step_measures_what_sgd_does() -> None:
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(
        ModelConfig(11, 12, 3, 20, max_length=9, dropout=0.0)
    ).double()
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0], [2, 10, 3, 0, 0, 0]])
    labels = torch.tensor([1, 0, 1])
    batch = {"input_ids": ids, "attention_mask": ids != 0, "labels": labels}
    how = {"schedule": "linear", "max_grad_norm": math.inf, "log_every": 2}
    settings = TrainingConfig(learning_rate=0.4, **how)
    state, start = state_around(model), _flat_weights(model)
    again = (state, batch, settings, 8, Classification())
    result, seen = _measured_step(*again)
    assert seen["learning_rate"] == 0.4
    assert math.isclose(seen["weight_norm"], start.norm().item())
    expected = 0.4 * result.grad_norm / start.norm().item()
    assert math.isclose(seen["update_ratio"], expected, rel_tol=1e-9), (seen, expected)
    result, seen = _measured_step(*again)
    assert (seen, result.step, state.step, result.tokens) == ({}, 2, 2, 13)
    *_, seen = _measured_step(*again)
    assert math.isclose(seen["learning_rate"], 0.4 * 6 / 8), "the schedule's"


def test_ema_follows_the_weights() -> None:
    class Growing:
        """An update adds 1 to the weight, and is skipped where the batch says so."""

        def update(self, state: Any, batch: Any, settings: Any) -> StepResult:
            skip = bool(batch["skip"])
            state.model.weight.data += not skip
            return StepResult(state.step + 1, 0.0, 0.0, 0, 1, 1, skip)

        def evaluate(self, model: Any, loader: Iterable) -> Metrics:
            """It is never judged."""

    def one_weight() -> TrainingState:
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75))
        return state_around(model, averaged=average)

    state, twin, found = one_weight(), one_weight(), []
    more = (TrainingConfig(), 9, Growing())
    for skip in (False, False, True, False):
        _measured_step(state, {"skip": torch.tensor(skip)}, *more)
        found.append(state.outcome.weight.item())
    by_hand = [2.0, 0.75 * 2 + 0.25 * 3]
    by_hand += [0.75 * by_hand[-1] + 0.25 * 3]  # the weight stands still
    by_hand += [0.75 * by_hand[-1] + 0.25 * 4]
    assert found == by_hand and state.model.weight.item() == 4.0
    twin.load_state_dict(state.state_dict())
    for each in (state, twin):
        _measured_step(each, {"skip": torch.tensor(False)}, *more)
        assert each.outcome.weight.item() == 0.75 * by_hand[-1] + 0.25 * 5


class Terminal(StringIO):
    """A text stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def monitor_three_steps(folder: Path, tensorboard: bool, stream: StringIO) -> None:
    """Two steps, the first of them measured, then a skipped one, and an epoch's record."""
    seen = {"learning_rate": 0.5, "weight_norm": 3.0, "update_ratio": 0.25}
    bad = StepResult(7, math.nan, math.inf, 0, 3, 12, skipped=True)
    with redirect_stderr(stream):
        monitor = _Monitor(folder, tensorboard, step=4, total=9)
        monitor.step(StepResult(5, 0.75, 1.5, 2, 3, 13), seen, accuracy=2 / 3)
        monitor.step(StepResult(6, 0.5, 1.25, 3, 3, 12), {}, accuracy=5 / 6)
        monitor.step(bad, {}, accuracy=5 / 6)
        monitor.bar.update(3)
        monitor.record("epoch", 7, {"epoch": 1, "validation": {"accuracy": 0.5}})
        monitor.bar.refresh()
        monitor.close()


def test_monitor_shows_a_bar_on_a_terminal_and_nothing_else_elsewhere() -> None:
    with tempfile.TemporaryDirectory() as base:
        terminal, pipe = Terminal(), StringIO()
        for stream in (terminal, pipe):
            monitor_three_steps(Path(base), False, stream)
        assert pipe.getvalue() == ""
        for word in ("7/9", "loss nan", "accuracy 83.3 %", "tokens/s", "<", "step"):
            assert word in terminal.getvalue(), f"{word!r} is missing"


def test_monitor_writes_the_same_numbers_to_both_places() -> None:
    with tempfile.TemporaryDirectory() as base:
        monitor_three_steps(Path(base), True, StringIO())
        (step,), (skipped,), (epoch,) = (read_records(base, kind) for kind in ("step", "skipped", "epoch"))
        curves = curves_in(Path(base, "tensorboard"))
    assert step.pop("tokens_per_second") > 0
    seen = {"learning_rate": 0.5, "weight_norm": 3.0, "update_ratio": 0.25}
    assert step == {"kind": "step", "step": 5, "loss": 0.75, "grad_norm": 1.5, **seen}
    assert skipped == {"kind": "skipped", "step": 7, "loss": None, "grad_norm": None}
    assert epoch["validation"] == {"accuracy": 0.5} and epoch["step"] == 7
    assert curves["step/loss"] == [(5, 0.75)]
    assert curves["step/update_ratio"] == [(5, 0.25)]
    assert curves["epoch/validation/accuracy"] == [(7, 0.5)]
    assert math.isnan(curves["skipped/loss"][0][1]), "TensorBoard can show NaN"


def curves_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in TensorBoard's files below a folder, as (step, value), read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = EventAccumulator(str(folder))
    with redirect_stderr(StringIO()):  # it reports what it leaves out
        files.Reload()
    tags = files.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in files.Scalars(tag)] for tag in tags}


def test_tensorboard_forgets_what_came_after_the_checkpoint() -> None:
    with tempfile.TemporaryDirectory() as base:
        # killed after step 5, resumed after step 3
        for steps, value in ((range(1, 6), 1.0), (range(4, 7), 2.0)):
            writer = _tensorboard_writer(Path(base), step=steps[0] - 1)
            for step in steps:
                writer.add_scalar("step/loss", value, step)
            writer.close()
        expected = [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]
        assert curves_in(Path(base, "tensorboard")) == {"step/loss": expected}
        absent = {"torch.utils.tensorboard": None}  # as if it were not installed
        with mock.patch.dict(sys.modules, absent), pytest.raises(ValueError, match="pip install tensorboard"):
            _tensorboard_writer(Path(base), 0)


def test_an_epoch_ends_with_the_outcome_and_new_sums() -> None:
    class Naming:
        """It is judged by the weight alone."""

        def update(self, state: Any, batch: Any, settings: Any) -> StepResult:
            """It never learns."""

        def evaluate(self, model: Any, loader: Iterable) -> Metrics:
            return Metrics(1, 1.0, model.weight.item())

    average = AveragedModel(nn.Linear(1, 1, bias=False))
    nn.init.constant_(average.module.weight, 7.0)
    state = state_around(nn.Linear(1, 1, bias=False), averaged=average, step=9)
    state.examples, state.correct, state.loss_sum, state.skipped = 8, 6, 4.0, 3
    job = replace(job_of_five(), objective=Naming())
    with tempfile.TemporaryDirectory() as base:
        monitor = _Monitor(Path(base))
        said = _end_epoch(state, job, monitor, epoch=2)
        monitor.close()
        (record,) = read_records(base, "epoch")
    assert record["train"] == {"n": 8, "accuracy": 0.75, "loss": 0.5}
    assert record["validation"]["loss"] == 7.0, "the average is judged"
    assert (record["epoch"], record["step"]) == (2, 9)
    assert (state.examples, state.correct, state.loss_sum) == (0, 0, 0.0)
    assert said.startswith("epoch 2/2: training loss 0.500")
    assert said.endswith("3 steps skipped so far")


def test_begin_depends_on_the_seed_alone() -> None:
    cpu, size = torch.device("cpu"), ModelConfig(60, 8, 2, 12, max_length=24)
    reading = PretrainConfig("x", "toy", size, chunk_length=16, seed=3)
    run = RunConfig("x", DataConfig("toy"), size, TrainingConfig(ema=0.5))
    for config, beta in ((reading, 0.98), (run, 0.999)):
        first, again = _begin(config, cpu), _begin(config, cpu)
        other = _begin(replace(config, seed=4), cpu)
        assert torch.equal(_flat_weights(first.model), _flat_weights(again.model))
        assert not torch.equal(_flat_weights(first.model), _flat_weights(other.model))
        assert first.optimizer.param_groups[0]["betas"] == (0.9, beta)
        assert (first.step, first.averaged is None) == (0, config is reading)
    assert isinstance(_begin(reading, cpu).model, TransformerForMaskedLM)


# chapters/workshop_runs.md · Kill it and go on
def short_run(**training: object) -> RunConfig:
    """A run of a second: 40 toy reviews, 3 steps an epoch, a model with C=8 and one layer."""
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "log_every": 2}
    settings |= {"schedule": "linear", "warmup": 0.2}
    data = DataConfig("toy", train_size=40, group_by_length=True)
    size = ModelConfig(500, 8, 2, 12, num_layers=1, max_length=24)
    return RunConfig("short", data, size, TrainingConfig(**settings | training))


def what_came(folder: Path) -> tuple[list[dict], bytes, bytes | None]:
    """All records without the measured speed, the weights, and the answers if there are any."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    records = [{k: line[k] for k in line if k != "tokens_per_second"} for line in lines]
    answers = folder / "predictions.jsonl"
    weights = (folder / "model.safetensors").read_bytes()
    return records, weights, answers.read_bytes() if answers.exists() else None


def interrupted_fit(config: Any, folder: Path, after: int, resume: bool = False) -> None:
    """Run `fit`, and stop it as Ctrl-C would, when `after` forward passes of training are done."""
    count = 0

    def stop(module: nn.Module, inputs: object) -> None:
        nonlocal count
        if isinstance(module, TransformerEncoder) and module.training:
            count += 1
            if count > after:
                raise KeyboardInterrupt

    hook = register_module_forward_pre_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(config, folder, resume=resume)
    finally:
        hook.remove()


def test_fit_resumes_in_the_middle_of_an_epoch_bit_for_bit() -> None:
    config = short_run(checkpoint_every=2, micro_batches=2)
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        whole = Path(base, "whole")
        fit(config, whole)
        for after in (1, 4, 5, 6, 9, 11):  # of 12 forward passes, 2 a step
            folder = Path(base, str(after))
            interrupted_fit(config, folder, after)
            assert not (folder / "run.json").exists()
            fit(config, folder, resume=True)
            assert what_came(folder) == what_came(whole), f"after {after} passes"
        lines = out.getvalue().splitlines()
    resumed = [line.split()[-1] for line in lines if line.startswith("going on")]
    assert resumed == ["2", "2", "3", "4", "4"], f"resumed after {resumed}"


def test_slow_steps_are_saved_by_the_clock() -> None:
    config = short_run(checkpoint_every=1000, micro_batches=2)
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        whole, parts = Path(base, "whole"), Path(base, "parts")
        fit(config, whole)
        slow = map(float, range(0, 99999, 301)).__next__  # seconds from look to look
        with mock.patch.object(time, "perf_counter", slow):
            interrupted_fit(config, parts, 10)
        fit(config, parts, resume=True)
        assert what_came(parts) == what_came(whole)
    assert "going on after step 5" in out.getvalue(), "an epoch has three"


def short_reading(**changes: object) -> PretrainConfig:
    size = ModelConfig(200, 8, 2, 12, num_layers=1, max_length=24)
    settings = {"batch_size": 64, "learning_rate": 3e-3, "checkpoint_every": 9}
    training = TrainingConfig(**settings, schedule="linear", warmup=0.1)
    more = {"chunk_length": 16, "held_out": 50, "label_weight": 0.2}
    return PretrainConfig("tiny", "toy", size, training, **more | changes)


def test_pretraining_learns_and_resumes() -> None:
    config = short_reading()
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        whole, parts = Path(base, "whole"), Path(base, "parts")
        metrics = fit(config, whole)
        first, record = read_records(whole, "step")[0]["loss"], read_run_record(whole)
        assert metrics.loss < first - 0.5, "the held-out loss falls"
        assert record["class"] == "read" and record["steps"] > 13
        assert record["data"].popitem()[1]["reviews"] == 700
        interrupted_fit(config, parts, 13)
        assert fit(config, parts, resume=True) == metrics
        assert "going on after step 9" in out.getvalue()
        assert what_came(parts) == what_came(whole) and what_came(whole)[2] is None
        assert fit(config, parts, resume=True) == metrics, "a finished run stays"
        with pytest.raises(ValueError, match=r"mask_rate is 0.2 there, 0.3 here"):
            fit(replace(config, mask_rate=0.3), parts, resume=True)


def reading_and_run(base: str) -> tuple[Path, RunConfig]:
    """A small reading, and the settings of a run that starts from it."""
    reading = Path(base, "reading")
    with redirect_stdout(StringIO()):
        fit(short_reading(), reading)
    size = read_settings(PretrainConfig, reading / "config.yaml").model
    size = replace(size, dropout=0.1, pooling="mean")
    data, training = DataConfig("toy", train_size=64), TrainingConfig(ema=0.9)
    return reading, RunConfig("run", data, size, training, initial=str(reading))


def test_weights_may_be_moved_but_not_changed() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as said:
        reading, config = reading_and_run(base)
        run, name = Path(base, "run"), "encoder.embedding.weight"
        fit(config, run)
        moved = replace(config, initial=str(reading.rename(Path(base, "moved"))))
        assert _finished_identity(run, RunConfig) == identity(_prepare(moved, run))
        fit(moved, run, resume=True)
        assert "is finished" in said.getvalue()
        weights = Path(base, "moved", "model.safetensors")
        tensors = load(weights.read_bytes())
        tensors[name][7] += 1
        save_file(tensors, weights)
        with pytest.raises(ValueError, match="belongs to another run: initial is"):
            fit(moved, run, resume=True)


def test_fit_gives_the_same_run_for_the_same_seed() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        a, b, c, d = (Path(base, name) for name in "abcd")
        for folder, seed in ((a, 3), (b, 3), (c, 4)):
            torch.manual_seed(folder is b)  # the global state must not matter
            fit(replace(short_run(), seed=seed), folder)
        assert what_came(a) == what_came(b)
        assert what_came(a)[1] != what_came(c)[1]
        fit(replace(short_run(tensorboard=True, checkpoint_every=1), seed=3), d)
        assert what_came(a) == what_came(d), "watching and saving change nothing"


def test_fit_writes_a_folder_that_tells_the_whole_run() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        folder = Path(base, "run")
        metrics = fit(short_run(tensorboard=True), folder)
        names = {name for name in os.listdir(folder) if not name.startswith(".")}
        files = {"config.yaml", "run.json", "metrics.jsonl", "predictions.jsonl"}
        files |= {"tokenizer.json", "config.json", "model.safetensors"}
        assert names == files | {"checkpoints", "tensorboard"}
        steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
        assert [record["step"] for record in steps] == [1, 3, 5]
        rates = [record["learning_rate"] for record in steps]
        assert np.allclose(rates, [0.0, 3e-3, 3e-3 * 2 / 4]), "2 up, 4 down"
        assert [record["epoch"] for record in epochs] == [1, 2]
        assert out.getvalue().count("validation acc") == 2
        config, model, tokenizer = load_run(folder)
        job = _prepare(config, folder)
        again = evaluate(model, job.measuring)
        assert asdict(again) == epochs[-1]["validation"] == asdict(metrics)
        correct = [answer["correct"] for answer in read_predictions(folder)]
        assert sum(correct) == round(metrics.accuracy * metrics.n)
        text = "a fine plot"
        assert tokenizer.encode(text) == job.tokenizer.encode(text)
        run = read_run_record(folder)
        assert run["class"] == "alone" and "initial" not in run
        sums = [entry["sha256"] for entry in job.data.values()]
        assert [entry["sha256"] for entry in run["data"].values()] == sums
        assert run["tokens_per_second"] > 0 and run["seconds"] > 0 and run["steps"] == 6
        logged = [(record["step"], record["loss"]) for record in steps]
        assert np.allclose(curves_in(folder / "tensorboard")["step/loss"], logged)


def test_run_record_counts_real_tokens() -> None:
    job = job_of_five(learning_rate=1e-9)
    state = _begin(job.config, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        _run_epochs(state, job, Path(base), lambda: None)
        _finish(Path(base), job, state)
        run = read_run_record(base)
        (*_, epoch) = read_records(base, "epoch")
    assert run == _run_record(job, state) and run["steps"] == 6 and run["seed"] == 5
    assert run["tokens"] == 2 * (7 + 3 + 4 + 5 + 3), "not padding"
    assert run["tokens_per_second"] == round(state.tokens / state.seconds)
    assert run["data"]["five texts"]["examples"] == 5 == epoch["train"]["n"]
    assert epoch["validation"] == asdict(evaluate(state.model, job.measuring))


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
        loader = _prepare(config, Path(base)).loader
    for epoch in (0, 1):
        loader.batch_sampler.set_epoch(epoch)
        expected += [batch["input_ids"].tolist() for batch in loader]
    assert seen == expected and len(seen) == 6


def test_fit_resumes_to_the_same_bits_in_32_and_16_bits() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        for autocast in ("fp32", "fp16"):
            config = short_run(autocast=autocast, epochs=3, log_every=1)
            whole, broken = Path(base, f"a {autocast}"), Path(base, f"b {autocast}")
            fit(config, whole)
            for step in (4, 1):  # in the second epoch; then again, in the same one
                interrupted_fit(config, broken, step, resume=True)
                (only,) = checkpoint_files(broken)
                assert only.name == "step_00000003.safetensors"
            torch.manual_seed(123)  # the global state must not matter
            fit(config, broken, resume=True)
            assert out.getvalue().count("going on after step 3") == 2
            assert what_came(broken) == what_came(whole)
            fit(config, broken, resume=True)
            assert "is finished" in out.getvalue(), "it is not run again"
            out.truncate(0)


def test_fit_passes_over_a_checkpoint_that_is_damaged_or_foreign() -> None:
    config = short_run(epochs=3)
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        whole = Path(base, "whole")
        fit(config, whole)
        for damage in ("cut", "foreign", "other run"):
            folder = shutil.copytree(whole, Path(base, damage))
            (folder / "run.json").unlink()
            newest = checkpoint_files(folder)[-1]
            if damage == "cut":
                newest.write_bytes(newest.read_bytes()[:-7])
            elif damage == "foreign":
                shutil.copy(folder / "model.safetensors", newest)
            else:
                other = load_checkpoint(newest) | {"identity": {"seed": 8}}
                save_checkpoint(folder, 9, other)
            with redirect_stderr(StringIO()) as err:
                fit(config, folder, resume=True)
            (warning,) = [w for w in err.getvalue().splitlines() if "warning" in w]
            assert warning.startswith(f"warning: {newest}")
            assert what_came(folder) == what_came(whole)
        assert out.getvalue().count("going on after step 6") == 3


def test_fit_refuses_to_go_on_with_another_run() -> None:
    words = "training.learning_rate is 0.003 there, 0.004 here"
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        folder = Path(base, "run")
        fit(short_run(), folder)
        for finished in (True, False):
            if not finished:
                (folder / "run.json").unlink()
            before = (folder / "metrics.jsonl").read_bytes()
            with redirect_stderr(StringIO()), pytest.raises(ValueError, match=words):
                fit(short_run(learning_rate=4e-3), folder, resume=True)
            assert (folder / "metrics.jsonl").read_bytes() == before
        with pytest.raises(ValueError, match="already holds a run"):
            fit(short_run(), folder)


def test_fit_stops_after_skips_in_a_row() -> None:
    def broken(*arguments: Any) -> Tensor:
        return torch.tensor(torch.nan)

    with (
        tempfile.TemporaryDirectory() as base,
        redirect_stdout(StringIO()),
        mock.patch.object(nn.utils, "clip_grad_norm_", broken),
    ):
        with pytest.raises(FloatingPointError, match=r"^4 steps in a row .* step 4 \(loss 0.*norm nan"):
            fit(short_run(max_skipped=4), Path(base, "run"))
        skipped = read_records(Path(base, "run"), "skipped")
    assert [record["step"] for record in skipped] == [1, 2, 3, 4], "all are recorded"


def test_settled_keeps_what_a_run_began_with() -> None:
    config, mps = short_run(autocast="auto"), torch.device("mps")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        here = _settled(config, mps, folder, resume=True)
        assert here.training.autocast == "fp32"
        assert replace(here, training=config.training) == config
        elsewhere = replace(config, training=replace(config.training, autocast="bf16"))
        _save_settings(elsewhere, folder / "config.yaml")
        assert _settled(config, mps, folder, resume=True) == elsewhere
        assert _settled(config, mps, folder, resume=False) == here
        assert _settled(elsewhere, mps, folder, resume=False) == elsewhere


def test_minutes_become_epochs_once() -> None:
    for batch, most in ((5, 15), (2, 5)):  # 15 steps; an epoch has one, or three
        job, clock = job_of_five(batch, minutes=0.25), map(float, range(7, 99))
        ticks = mock.patch.object(time, "perf_counter", clock.__next__)
        with ticks, redirect_stdout(StringIO()) as said:  # a second at every look
            found = _within_minutes(job, torch.device("cpu"))
        training = replace(job.config.training, epochs=most)
        assert found == replace(job, config=replace(job.config, training=training))
        assert f"1.000 seconds a step: {most} epochs for 0.25" in said.getvalue()
    with tempfile.TemporaryDirectory() as base:
        _save_settings(found.config, Path(base, "config.yaml"))
        for resume, epochs in ((True, 5), (False, 2)):
            kept = _settled(job.config, torch.device("cpu"), Path(base), resume)
            assert kept.training.epochs == epochs


def test_a_run_ends_with_the_average() -> None:
    config = short_run(ema=0.5)
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        folder = Path(base)
        job = _prepare(config, folder)
        state = _begin(job.config, torch.device("cpu"))
        _run_epochs(state, job, folder, lambda: None)
        _finish(folder, job, state)
        saved = load((folder / "model.safetensors").read_bytes())
        record = asdict(last_validation(folder))
    ours = state.outcome.state_dict()
    assert all(torch.equal(saved[name], ours[name]) for name in ours)
    assert not torch.equal(saved["classifier.weight"], state.model.classifier.weight)
    assert record == asdict(evaluate(state.outcome, job.measuring)), "it is validated"


def test_a_run_starts_from_what_was_read() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        reading, config = reading_and_run(base)
        run, source = (Path(base, "run"), load((reading / "model.safetensors").read_bytes()))
        start = _begin(config, torch.device("cpu")).model.state_dict()
        assert all(torch.equal(start[name], source[name]) for name in start)
        fit(config, run)
        _, trained, tokenizer = load_run(run)
        pieces, text = load_tokenizer(reading / "tokenizer.json"), "a fine film"
        assert tokenizer.encode(text) == pieces.encode(text)
        record = read_run_record(run)
        assert (record["class"], record["initial"]) == _origin(config)
        assert record["initial"]["folder"] == "reading"
        name = "encoder.embedding.weight"
        assert not torch.equal(trained.state_dict()[name], source[name])
        wider = replace(config, model=replace(config.model, d_ff=16))
        with pytest.raises(ValueError, match=r"linear1.bias is \[12\] in the file, \[16\] in the model"):
            _begin(wider, torch.device("cpu"))
        words = DataConfig("toy", train_size=64, tokenizer=str(reading))
        speaks = _prepare(replace(config, initial=None, data=words), run)
        assert speaks.tokenizer.vocabulary.tokens == pieces.vocabulary.tokens
        assert identity(speaks)["initial"] == _origin(speaks.config)[1]["sha256"]


def test_a_reading_goes_on_from_another() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        first, on = Path(base, "first"), Path(base, "on")
        fit(short_reading(), first)
        record, weights = read_run_record(first), first / "model.safetensors"
        _write_json(first / "run.json", record | {"class": "taught"})
        config = short_reading(initial=str(first), seed=1)
        theirs = load(weights.read_bytes())
        job = _prepare(config, Path(base, "elsewhere"))
        tokens = load_tokenizer(first / "tokenizer.json").vocabulary.tokens
        assert job.tokenizer.vocabulary.tokens == tokens
        ours = _begin(job.config, torch.device("cpu")).model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        del job  # it holds its corpus open
        interrupted_fit(config, on, 13)
        metrics, found = fit(config, on, resume=True), read_run_record(on)
        assert found["class"] == "taught"
        assert found["initial"] == {"folder": "first", **_file_digest(weights)}
        assert fit(config, on, resume=True) == metrics, "a finished run stays"
        save_file(theirs | {"bias": theirs["bias"] + 1}, weights)
        with pytest.raises(ValueError, match="belongs to another run: initial is"):
            fit(config, on, resume=True)
