# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.checkpoint`."""

import json
import math
import re
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save
from torch import Tensor, nn

from minitransformer import config as newest
from minitransformer.data import Examples
from minitransformer.experiment.checkpoint import (
    CHECKPOINTS_KEPT,
    TrainingState,
    load_checkpoint,
    pack,
    random_state,
    same_run,
    save_checkpoint,
    set_random_state,
    unpack,
)
from minitransformer.experiment.folder import (
    RUN_FILES,
    append_record,
    checkpoint_files,
    checksum,
    open_run_folder,
    read_predictions,
    read_records,
)
from minitransformer.experiment.job import flat, identity
from minitransformer.experiment.settings import DataConfig, RunConfig, TrainingConfig, read_settings
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.train import StepResult, flat_weights, make_scaler, train_epoch


# chapters/workshop_runs.md · Checkpoints: the whole state of a run in one file, without pickle.
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


def small_model(**changes: object) -> TransformerForSequenceClassification:
    """A model in 64 bits with C=12, H=3, V=11."""
    torch.manual_seed(0)
    settings = {"vocab_size": 11, "d_model": 12, "num_heads": 3, "d_ff": 20, "max_length": 9, "dropout": 0.0}
    return TransformerForSequenceClassification(ModelConfig(**settings | changes)).double()


def small_state(seed: int = 0, **changes: object) -> TrainingState:
    """A state around a small model in 32 bits, with dropout, so that the random numbers matter."""
    model = small_model(**{"dropout": 0.3} | changes).float()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    return TrainingState(model, optimizer, make_scaler(torch.device("cpu"), "fp16"))


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


def uneven_batch() -> dict[str, Tensor]:
    """Seven sentences of 4, 3, 6, 5, 9, 3 and 7 tokens, padded to 9."""
    lengths = (4, 3, 6, 5, 9, 3, 7)
    words = [[4 + (3 * i + j * j) % 7 for j in range(n - 2)] for i, n in enumerate(lengths)]
    ids = torch.tensor([[2, *row, 3, *[0] * (7 - len(row))] for row in words])
    return {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([1, 0, 0, 1, 1, 0, 1])}


def tiny_run(**changes: object) -> RunConfig:
    """A run of a second: 40 toy reviews, a model with C=8 and one layer."""
    settings = {
        "name": "tiny",
        "data": DataConfig("toy", train_size=40),
        "model": ModelConfig(vocab_size=500, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24),
        "training": TrainingConfig(epochs=2, batch_size=16, learning_rate=3e-3, log_every=2),
    }
    return RunConfig(**settings | changes)


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


def short_run(**training: object) -> RunConfig:
    """A run of a second: 40 toy reviews, 3 steps an epoch, a model with C=8 and one layer."""
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "log_every": 2, "schedule": "linear"}
    return RunConfig(
        name="short",
        data=newest.DataConfig("toy", train_size=40, group_by_length=True),
        model=ModelConfig(vocab_size=500, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24),
        training=newest.TrainingConfig(**settings | {"warmup": 0.2} | training),
    )


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


def settings_of(*lines: str) -> RunConfig:
    """The settings that a YAML file with these lines, and the least that a run needs, gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text("\n".join(["name: x", "model: {vocab_size: 50, d_model: 12, num_heads: 3}", *lines]))
        return read_settings(RunConfig, path)


def test_data_config_reads_group_by_length() -> None:
    read = settings_of("data: {name: toy, group_by_length: true}").data
    assert asdict(DataConfig("toy", group_by_length=True)).items() <= asdict(read).items()
    assert settings_of("data: {name: toy}").data.group_by_length is False
    try:
        settings_of("data: {name: toy, group_by_length: 7}")
        raise AssertionError("7 is neither true nor false")
    except ValueError as error:
        assert "data.group_by_length" in str(error) and "bool" in str(error), error


def test_training_config_refuses_what_no_schedule_can_do() -> None:
    for changes, name in [
        ({"warmup": 1.0}, "training.warmup"),
        ({"warmup": -0.1}, "training.warmup"),
        ({"checkpoint_every": 0}, "training.checkpoint_every"),
        ({"log_every": 0}, "training.log_every"),
        ({"max_skipped": 0}, "training.max_skipped"),
        ({"batch_size": 4, "micro_batches": 5}, "training.micro_batches"),
        ({"max_grad_norm": 0.0}, "training.max_grad_norm"),
    ]:
        try:
            TrainingConfig(**changes)
            raise AssertionError(f"{changes} was accepted")
        except ValueError as error:
            assert str(error).startswith(name), error
    for word in ("schedule: cosine", "device: tpu", "autocast: int8"):
        try:
            settings_of("data: {name: toy}", f"training: {{{word}}}")
            raise AssertionError(f"{word} was accepted")
        except ValueError as error:
            assert f"training.{word.split(':')[0]}" in str(error) and word.split()[1] in str(error), error
    read = settings_of(
        "data: {name: toy}", "training: {schedule: linear, warmup: 0.06, autocast: fp32}"
    ).training
    wanted = TrainingConfig(schedule="linear", warmup=0.06)
    assert asdict(wanted).items() <= asdict(read).items() and read.tensorboard is False


def test_pack_and_unpack_are_inverse() -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1)
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "odd": [None, True, 2**40, 1e-7, {}, torch.eye(3)[:, 1], torch.ones(2)],
    }
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(state, tensors))
    found = unpack(json.loads(text), tensors)
    assert list(found["optimizer"]["state"]) == [0, 1], "the keys must come back as numbers"
    assert found["odd"][:5] == state["odd"][:5] and all(map(torch.equal, found["odd"][5:], state["odd"][5:]))
    assert found["optimizer"]["param_groups"][0]["betas"] == [0.9, 0.999], "a tuple comes back as a list"
    for index, moments in state["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(found["optimizer"]["state"][index][name], value), name
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_checkpoints_come_back_or_say_what_is_wrong() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        states = [{"step": step, "weight": torch.arange(5.0) * step} for step in (9, 10, 200)]
        for state in states:
            path = save_checkpoint(folder, state["step"], state)
        names = ["step_00000010.safetensors", "step_00000200.safetensors"]
        assert [p.name for p in checkpoint_files(folder)] == names and len(names) == CHECKPOINTS_KEPT
        for state, saved in zip(states[1:], checkpoint_files(folder), strict=True):
            found = load_checkpoint(saved)
            assert found["step"] == state["step"] and torch.equal(found["weight"], state["weight"])
        content = path.read_bytes()
        foreign = (save({"x": torch.ones(2)}), save({"x": torch.ones(2)}, {"state": "{1"}), b"hello", b"")
        cuts = [content[:size] for size in (1, 8, 40, len(content) // 2, len(content) - 1)]
        for wrong in [*foreign, *cuts]:
            path.write_bytes(wrong)
            try:
                load_checkpoint(path)
                raise AssertionError(f"{len(wrong)} wrong bytes were accepted")
            except ValueError as error:
                assert re.search("not a (complete safetensors file|checkpoint of a run)", str(error)), error
                assert str(path) in str(error)
                if wrong in foreign[:2]:
                    assert "but not a checkpoint" in str(error), error
        assert checkpoint_files(folder / "nowhere") == []


def test_open_run_folder_resumes_or_overwrites() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = open_run_folder(Path(base, "run"), resume=True)
        append_record(folder / "metrics.jsonl", {"kind": "epoch", "epoch": 1})
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "epo')  # killed while writing
        assert read_records(folder, "epoch") == [{"kind": "epoch", "epoch": 1}]
        save_checkpoint(folder, 3, {"step": 3})
        (folder / "predictions.jsonl").write_text('{"positive": 0.25, "correct": true}\n')
        assert read_predictions(folder) == [{"positive": 0.25, "correct": True}]
        for how, words in (({}, "--resume"), ({"overwrite": True, "resume": True}, "either")):
            try:
                open_run_folder(folder, **how)
                raise AssertionError(f"{how} was accepted")
            except ValueError as error:
                assert words in str(error) and "\n" not in str(error)
        open_run_folder(folder, resume=True)
        assert (folder / "metrics.jsonl").exists() and len(checkpoint_files(folder)) == 1
        open_run_folder(folder, overwrite=True)
        assert not any((folder / name).exists() for name in RUN_FILES) and not checkpoint_files(folder)
