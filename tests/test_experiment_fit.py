# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.fit`."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
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
from minitransformer.data import Examples, make_loader
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.experiment.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from minitransformer.experiment.fit import (
    Monitor,
    begin,
    end_epoch,
    finish,
    fit,
    measured_step,
    run_epochs,
    set_learning_rate,
    settled,
)
from minitransformer.experiment.folder import (
    RUN_FILES,
    checkpoint_files,
    checksum,
    load_run,
    origin,
    read_predictions,
    read_records,
    read_run_record,
)
from minitransformer.experiment.job import Classification, Reading, prepare, sample
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    read_settings,
    save_settings,
)
from minitransformer.model import ModelConfig, TransformerForMaskedLM, TransformerForSequenceClassification
from minitransformer.pretrain import Corpus, MaskedLMObjective, make_corpus_loader, mask_tokens
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer, load_tokenizer
from minitransformer.train import StepResult, flat_weights, make_scaler, train_epoch


# chapters/workshop_runs.md · Whole runs: prepared, trained, watched, saved and resumed.
def tiny_run(**changes: object) -> RunConfig:
    """A run of a second: 40 toy reviews, a model with C=8 and one layer."""
    settings = {
        "name": "tiny",
        "data": DataConfig("toy", train_size=40),
        "model": ModelConfig(vocab_size=500, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24),
        "training": TrainingConfig(epochs=2, batch_size=16, learning_rate=3e-3, log_every=2),
    }
    return RunConfig(**settings | changes)


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


def short_run(**training: object) -> RunConfig:
    """A run of a second: 40 toy reviews, 3 steps an epoch, a model with C=8 and one layer."""
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "log_every": 2, "schedule": "linear"}
    return RunConfig(
        name="short",
        data=newest.DataConfig("toy", train_size=40, group_by_length=True),
        model=ModelConfig(vocab_size=500, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24),
        training=newest.TrainingConfig(**settings | {"warmup": 0.2} | training),
    )


def what_a_run_gave(folder: Path) -> tuple[list[dict], bytes, bytes]:
    """All records without the measured speed, the weights and the answers: equal runs give equal values."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in lines]
    return (records, (folder / "model.safetensors").read_bytes(), (folder / "predictions.jsonl").read_bytes())


def test_fit_writes_a_folder_that_tells_the_whole_run() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        folder = Path(base, "run")
        metrics = fit(short_run(tensorboard=True), folder)
        names = sorted(path.name for path in folder.iterdir())
        files = {"config.yaml", "run.json", "metrics.jsonl", "predictions.jsonl", "tokenizer.json"}
        files |= {"config.json", "model.safetensors"}
        assert set(names) == files | {"checkpoints", "tensorboard"} and files <= set(RUN_FILES)
        steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
        assert [record["step"] for record in steps] == [1, 3, 5], "3 steps an epoch, every second one logged"
        rates = [record["learning_rate"] for record in steps]
        assert np.allclose(rates, [0.0, 3e-3, 3e-3 * 2 / 4]), "2 updates of warm-up, then down over 4"
        assert [record["epoch"] for record in epochs] == [1, 2] == [1, out.getvalue().count("validation acc")]
        config, tokenizer, train, validation = prepare(read_settings(RunConfig, folder / "config.yaml"))
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


def curves_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in TensorBoard's files below a folder, as (step, value), read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = EventAccumulator(str(folder))
    with redirect_stderr(StringIO()):  # it reports what it leaves out
        files.Reload()
    return {tag: [(e.step, e.value) for e in files.Scalars(tag)] for tag in files.Tags()["scalars"]}


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


def settings_of_five() -> RunConfig:
    return RunConfig("five", newest.DataConfig("toy"), ModelConfig(vocab_size=50), seed=5)


def test_settled_keeps_what_a_run_began_with() -> None:
    config, mps = (tiny_run(training=TrainingConfig(autocast="auto")), torch.device("mps"))
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        here = settled(config, mps, folder, resume=True)
        assert here.training.autocast == "fp32" and replace(here, training=config.training) == config
        elsewhere = replace(config, training=replace(config.training, autocast="bf16"))
        save_settings(elsewhere, folder / "config.yaml")
        assert settled(config, mps, folder, resume=True) == elsewhere
        assert settled(config, mps, folder, resume=False) == here
        assert settled(elsewhere, mps, folder, resume=False) == elsewhere


def dies_at(step: int) -> Any:
    """A context in which the `step`-th training step is interrupted, as by Ctrl-C."""
    clip, calls = nn.utils.clip_grad_norm_, []

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return clip(*arguments)

    return mock.patch.object(nn.utils, "clip_grad_norm_", interrupted)


def run_and_tell(config: RunConfig, folder: Path, **how: bool) -> tuple[str, str]:
    """What a run prints, to standard output and to standard error."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        fit(config, folder, **how)
    return out.getvalue(), err.getvalue()


def result_of(folder: Path) -> tuple[list, list, list, dict[str, Tensor]]:
    """The records, the answers and the weights of a finished run."""
    steps = [(record["step"], record["loss"], record["grad_norm"]) for record in read_records(folder, "step")]
    model = TransformerForSequenceClassification.from_pretrained(folder)
    return (steps, read_records(folder, "epoch"), read_predictions(folder), model.state_dict())


def assert_same_result(a: Path, b: Path) -> None:
    """Every record, answer and weight of two runs must be the same to the last bit."""
    (*records, weights), (*others, twins) = result_of(a), result_of(b)
    for name, ours, theirs in zip(("steps", "epochs", "answers"), records, others, strict=True):
        assert ours == theirs, f"the {name} differ"
    for name, value in weights.items():
        assert torch.equal(value, twins[name]), f"{name} differs by {(value - twins[name]).abs().max()}"


THREE_EPOCHS = """
name: tiny
data: {name: toy, train_size: 40}
model: {vocab_size: 500, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}
training: {epochs: 3, batch_size: 16, micro_batches: 2, learning_rate: 3e-3, log_every: 1}
"""


def three_epochs(*overrides: str) -> RunConfig:
    """A tiny run with dropout, three updates an epoch, each in two parts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(THREE_EPOCHS)
        return read_settings(RunConfig, path, overrides)


def test_fit_resumes_to_the_same_bits() -> None:
    with tempfile.TemporaryDirectory() as base:
        for autocast in ("fp32", "fp16"):
            config = three_epochs("--training.autocast", autocast)
            whole, broken = (Path(base, f"whole {autocast}"), Path(base, f"broken {autocast}"))
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


def state_for_watching(rate: float = 0.3) -> TrainingState:
    """A state with a model in 64 bits (C=12, H=3, V=11) and plain SGD."""
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=11, d_model=12, num_heads=3, d_ff=20, max_length=9, dropout=0.0)
    model = TransformerForSequenceClassification(config).double()
    return TrainingState(
        model, torch.optim.SGD(model.parameters(), rate), make_scaler(torch.device("cpu"), "fp32")
    )


def two_batches() -> list[dict[str, Tensor]]:
    """Three sentences of 6, 4 and 3 tokens, then the last two of them alone."""
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0], [2, 10, 3, 0, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([1, 0, 1])}
    return [batch, {name: value[1:] for name, value in batch.items()}]


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


class Terminal(StringIO):
    """A text stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


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


def test_fit_resumes_in_the_middle_of_an_epoch_bit_for_bit() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()) as out:
        config, whole = (short_run(checkpoint_every=2, micro_batches=2), Path(base, "whole"))
        fit(config, whole)
        for after in (1, 4, 5, 6, 9, 11):  # of 12 forward passes, 2 a step
            folder = Path(base, str(after))
            interrupted_fit(config, folder, after)
            assert not (folder / "run.json").exists()
            fit(config, folder, resume=True)
            assert what_a_run_gave(folder) == what_a_run_gave(whole), f"interrupted after {after} passes"
        resumed = [line.split()[-1] for line in out.getvalue().splitlines() if line.startswith("going on")]
        assert resumed == ["2", "2", "3", "4", "4"], f"resumed after the steps {resumed}"


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
    loader, settings = (make_loader(examples, tokenizer, 4), TrainingConfig(epochs=2, schedule="linear"))
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
    assert asdict(Classification().evaluate(model, [batch])) == asdict(evaluate(model, [batch]))


def one_weight(ema: float) -> TrainingState:
    """A state whose model is one weight of 1, and an average of it."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    return TrainingState(model, optimizer, make_scaler(torch.device("cpu"), "fp32"), averaged=averaged)


def grow(state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
    """An update that adds 1 to the weight, and is skipped where the batch says so."""
    if not batch["skip"]:
        state.model.weight.data += 1
    return StepResult(state.step + 1, 0.0, 0.0, 0, 1, 1, bool(batch["skip"]))


def test_ema_follows_the_weights():
    state, objective = (one_weight(0.75), type("Growing", (), {"update": staticmethod(grow)})())
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


def test_a_run_ends_with_the_average():
    size = ModelConfig(60, 8, 2, 12, num_layers=1, max_length=24)
    config = RunConfig("run", DataConfig("toy", train_size=64), size, TrainingConfig(batch_size=16, ema=0.5))
    config, tokenizer, train, validation = prepare(config)
    state = begin(config, torch.device("cpu"))
    loader, measuring = (make_loader(train, tokenizer, 16), make_loader(validation, tokenizer, 256))
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        run_epochs(state, loader, measuring, config.training, Path(folder), lambda: None)
        finish(Path(folder), config, state, tokenizer, train, validation, measuring)
        saved = load_file(Path(folder, "model.safetensors"))
        record = read_records(folder, "epoch")[-1]["validation"]
    assert all(torch.equal(saved[name], value) for name, value in state.outcome.state_dict().items())
    assert not torch.equal(saved["classifier.weight"], state.model.classifier.weight)
    assert record == asdict(evaluate(state.outcome, measuring)), "it is the average that is validated"


def make_test_corpus(sizes: Sequence[int] = (1, 7, 20, 12, 0, 33)) -> Corpus:
    tokens = np.arange(5, 5 + sum(sizes), dtype=np.uint16)
    ends = np.cumsum(sizes)
    return Corpus(tokens, np.stack([ends - sizes, ends], 1), np.arange(len(sizes)) % 2, "made up", "0")


def small_masked_model(**changes: object) -> TransformerForMaskedLM:
    torch.manual_seed(0)
    config = {"vocab_size": 80, "d_model": 12, "num_heads": 3, "d_ff": 20, "num_layers": 1, "max_length": 10}
    return TransformerForMaskedLM(ModelConfig(**config | {"dropout": 0.0} | changes))


def test_masked_loss_is_the_mean_over_hidden_tokens():
    model, objective = (small_masked_model().double(), Reading(rate=0.4, label_weight=0.5, seed=3))
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4, seed=0)))
    token_loss, label_loss, correct, size = objective.losses(model, batch, 7)
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 7)
    seen, chosen = mask_tokens(batch["input_ids"], batch["attention_mask"], 80, 0.4, generator)
    logits = model.name_tokens(model.encoder(seen, batch["attention_mask"]).flatten(0, 1)).view(
        *seen.shape, 80
    )
    rows = [(i, t) for i in range(len(seen)) for t in range(seen.size(1)) if chosen[i, t]]
    expected = [-logits[i, t].log_softmax(-1)[batch["input_ids"][i, t]] for i, t in rows]
    torch.testing.assert_close(token_loss, torch.stack(expected).mean())
    assert size == len(rows) and correct == sum(
        int(logits[i, t].argmax()) == int(batch["input_ids"][i, t]) for i, t in rows
    )
    torch.testing.assert_close(
        label_loss, F.cross_entropy(model(seen, batch["attention_mask"]), batch["labels"])
    )
    unknown = batch | {"labels": torch.full_like(batch["labels"], -1)}
    assert objective.losses(model, unknown, 7)[1] == 0, "unknown labels do not count"
    assert MaskedLMObjective(rate=0.4, seed=3).losses(model, batch, 7)[1] == 0
    held_out = make_corpus_loader(make_test_corpus(), 8, 4)
    twice = [objective.evaluate(model, held_out) for _ in range(2)]
    assert twice[0] == twice[1] and twice[0].n > 20
    found = [
        objective.losses(model, b, -1 - i) for i, b in enumerate(make_corpus_loader(make_test_corpus(), 8, 4))
    ]
    expected = sum(loss.item() * n for loss, _, _, n in found) / sum(n for *_, n in found)
    assert math.isclose(twice[0].loss, expected), "tokens that no training step hides"


def test_masked_update_is_a_step_of_sgd():
    model, objective = (small_masked_model().double(), Reading(rate=0.4, label_weight=0.5))
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "fp32")
    )
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4)))
    twin = small_masked_model().double()
    token_loss, label_loss, correct, size = objective.losses(twin, batch, 0)
    (token_loss + 0.5 * label_loss).backward()
    result = objective.update(state, batch, TrainingConfig(max_grad_norm=math.inf))
    assert (result.step, result.correct, result.examples) == (1, correct, size) and not result.skipped
    assert math.isclose(result.loss, token_loss.item()) and result.tokens == int(
        batch["attention_mask"].sum()
    )
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad)


def pretrain_config(**changes: object) -> PretrainConfig:
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24)
    training = TrainingConfig(
        batch_size=64, learning_rate=3e-3, schedule="linear", warmup=0.1, checkpoint_every=9
    )
    config = {"name": "tiny", "corpus": "toy", "model": model, "training": training, "chunk_length": 16}
    return PretrainConfig(**config | {"held_out": 50, "label_weight": 0.2} | changes)


def pretrain_quietly(config: PretrainConfig, folder: Path, **options: bool) -> Metrics:
    with redirect_stdout(StringIO()):
        return fit(config, folder, **options)


def interrupt_after(steps: int) -> Callable:
    """`Reading.update`, but Ctrl-C comes in the step after so many."""
    original, calls = Reading.update, []

    def stop(*arguments: Any) -> StepResult:
        calls.append(1)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return original(*arguments)

    return stop


def pretrain_interrupted(config: PretrainConfig, folder: Path, steps: int) -> None:
    """Start a reading, and interrupt it after so many steps."""
    with patch.object(Reading, "update", interrupt_after(steps)):
        try:
            pretrain_quietly(config, folder)
            raise AssertionError("it was not interrupted")
        except KeyboardInterrupt:
            pass


def test_pretraining_learns_and_resumes():
    config = pretrain_config()
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        metrics = pretrain_quietly(config, whole)
        first = read_records(whole, "step")[0]["loss"]
        assert metrics.loss < first - 0.5, "the held-out loss falls"
        record = json.loads((whole / "run.json").read_text())
        assert record["class"] == "read" and record["steps"] > 13
        pretrain_interrupted(config, parts, 13)
        assert pretrain_quietly(config, parts, resume=True) == metrics
        mine, theirs = (load_file(path / "model.safetensors") for path in (whole, parts))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), "bit for bit"
        assert pretrain_quietly(config, parts, resume=True) == metrics, "a finished run stays"
        try:
            pretrain_quietly(replace(config, mask_rate=0.3), parts, resume=True)
            raise AssertionError("another run")
        except ValueError as error:
            assert "mask_rate is 0.2 there, 0.3 here" in str(error)


def test_prepare_pretraining_holds_reviews_back():
    with tempfile.TemporaryDirectory() as folder:
        save_settings(pretrain_config(), Path(folder, "config.yaml"))
        assert read_settings(PretrainConfig, Path(folder, "config.yaml")) == pretrain_config()
        config, tokenizer, corpus, held_out = prepare(pretrain_config(), Path(folder))
        assert len(held_out) == 50 and len(corpus) == 700
        assert config.model.vocab_size == len(tokenizer.vocabulary)
        spans = [{tuple(span) for span in part.spans.tolist()} for part in (corpus, held_out)]
        assert not spans[0] & spans[1], "what is held out is not read"
        try:
            prepare(pretrain_config(held_out=750), Path(folder))
            raise AssertionError("nothing left to read")
        except ValueError as error:
            assert "held_out must be below the 750 reviews there are" in str(error)


def reading_and_run(folder: str) -> tuple[Path, RunConfig]:
    """A small pretraining run, and the settings of a run that starts from it."""
    reading = Path(folder, "reading")
    pretrain_quietly(pretrain_config(), reading)
    model = replace(read_settings(PretrainConfig, reading / "config.yaml").model, dropout=0.1, pooling="mean")
    training = TrainingConfig(ema=0.9, layer_decay=0.5)
    return reading, RunConfig("run", DataConfig("toy", train_size=256), model, training, initial=str(reading))


def test_a_run_starts_from_what_was_read():
    with tempfile.TemporaryDirectory() as folder:
        reading, config = reading_and_run(folder)
        run, source = Path(folder, "run"), load_file(reading / "model.safetensors")
        state = begin(config, torch.device("cpu"))
        assert all(torch.equal(value, source[name]) for name, value in state.model.state_dict().items())
        with redirect_stdout(StringIO()):
            fit(config, run)
        _, trained, tokenizer = load_run(run)
        pieces = load_tokenizer(reading / "tokenizer.json")
        assert tokenizer.encode("a fine film") == pieces.encode("a fine film")
        record = read_run_record(run)
        assert record["class"] == "read" and record["initial"]["folder"] == "reading"
        name = "encoder.embedding.weight"
        assert not torch.equal(trained.state_dict()[name], source[name])


def test_what_does_not_fit_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        reading, config = reading_and_run(folder)
        wider = replace(config, model=replace(config.model, d_ff=16))
        name = "encoder.layers.0.feed_forward.linear1.bias"
        try:
            begin(wider, torch.device("cpu"))
            raise AssertionError("another width")
        except ValueError as error:
            assert f"{name} is [12] in the file, [16] in the model" in str(error)
        words = replace(config, initial=None, data=DataConfig("toy", train_size=64, tokenizer=str(reading)))
        pieces = load_tokenizer(reading / "tokenizer.json")
        assert prepare(words)[1].vocabulary.tokens == pieces.vocabulary.tokens
        assert origin(words)[0] == "read" and origin(replace(words, data=DataConfig("toy"))) == ("alone", {})
        try:
            replace(config, data=words.data)
            raise AssertionError("two tokenizers")
        except ValueError as error:
            assert "data.tokenizer must be null where initial is given" in str(error)
        shorter = Vocabulary(pieces.vocabulary.tokens[:-1])
        with redirect_stdout(StringIO()):
            fit(config, Path(folder, "run"))
        WordTokenizer(shorter, 24).save(Path(folder, "run/tokenizer.json"))
        try:
            load_run(Path(folder, "run"))
            raise AssertionError("a tokenizer of another run")
        except ValueError as error:
            assert "they are not from one run" in str(error)
