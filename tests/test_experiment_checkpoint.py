# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.checkpoint`."""

import copy
import json
import math
import re
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from minitransformer.experiment.checkpoint import (
    TrainingState,
    _pack,
    _random_state,
    _same_run,
    _set_random_state,
    _unpack,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from minitransformer.experiment.folder import checkpoint_files
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.train import StepResult, make_scaler, train_step


# chapters/workshop_runs.md · The whole state in one file
def small_state(seed: int = 0, **changes: object) -> TrainingState:
    """A state around a small model with dropout, so that the random numbers matter."""
    size = {"vocab_size": 11, "d_model": 12, "num_heads": 3, "d_ff": 20, "dropout": 0.3}
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(**size | changes))
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    return TrainingState(model, optimizer, make_scaler(torch.device("cpu"), "fp16"))


def go_on(state: TrainingState, steps: int) -> None:
    """Train for some steps, in fp16 and in two parts, on four sentences of 5, 4, 7 and 3 tokens."""
    words = [[2, 5, 6, 9, 3, 0, 0], [2, 8, 4, 3, 0, 0, 0]]
    ids = torch.tensor([*words, [2, 10, 7, 5, 8, 6, 3], [2, 4, 3, 0, 0, 0, 0]])
    labels = torch.tensor([1, 0, 0, 1])
    batch = {"input_ids": ids, "attention_mask": ids != 0, "labels": labels}
    for _ in range(steps):
        how = (1.0, state.step + 1, 2, "fp16", state.scaler)
        state.add(train_step(state.model, batch, state.optimizer, *how))


def test_training_state_goes_on_as_if_nothing_had_happened() -> None:
    state = small_state()
    go_on(state, 3)
    state.scaler.update(2.0**13)  # as after some skipped steps
    saved = copy.deepcopy(state.state_dict())  # the tensors in it train on
    go_on(state, 4)
    other = small_state(seed=99)
    go_on(other, 1)
    other.load_state_dict(saved)
    assert other.step == 3 and other.scaler.get_scale() == 2.0**13
    go_on(other, 4)
    assert other.step == 7 and other.loss_sum == state.loss_sum
    for a, b in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b), "the weights differ"
    with pytest.raises(ValueError, match=r"^the checkpoint does not fit this model: .*$"):
        small_state(d_ff=24).load_state_dict(saved)


def test_restore_takes_the_newest_checkpoint_that_is_sound_and_its_own() -> None:
    with tempfile.TemporaryDirectory() as base, redirect_stderr(StringIO()) as said:
        folder, state, ours = Path(base), small_state(), {"seed": 0}
        log = folder / "metrics.jsonl"
        for step in (1, 2):
            go_on(state, 1)
            log.write_text("x" * 10 * step)
            extra = {"identity": ours, "log_bytes": 10 * step}
            last = save_checkpoint(folder, step, {**extra, **state.state_dict()})
        other = small_state(seed=5)
        assert restore(folder, other, ours) and other.step == 2
        last.write_bytes(last.read_bytes()[:-7])
        assert restore(folder, other, ours) and other.step == 1
        assert log.read_text() == "x" * 10, "what came after is written again"
        assert said.getvalue().startswith(f"warning: {last} is not a complete")
        with pytest.raises(ValueError, match=r"seed is 0 there, 1 here; --overwrite starts anew"):
            restore(folder, other, {"seed": 1})
        log.write_text("x")
        with pytest.raises(ValueError, match="shorter than the 10 bytes"):
            restore(folder, other, ours)
        assert not restore(Path(base, "empty"), other, ours)


def test_random_state_holds_the_devices_own_generator() -> None:
    cpu, cuda, mps = map(torch.device, ("cpu", "cuda:1", "mps"))
    before, first = _random_state(cpu), torch.rand(4)
    _set_random_state(before, cpu)
    assert torch.equal(torch.rand(4), first) and set(before) == {"cpu"}
    for device, which in ((cuda, (cuda,)), (mps, ())):
        chip = mock.Mock(**{"get_rng_state.return_value": torch.tensor([7])})
        with mock.patch.object(torch, "get_device_module", return_value=chip):
            state = _random_state(device)
            _set_random_state(state, device)
            _set_random_state(before, device)  # begun on a CPU: nothing to go back to
        chip.get_rng_state.assert_called_once_with(*which)
        chip.set_rng_state.assert_called_once_with(state[device.type], *which)


def test_training_state_counts() -> None:
    state = small_state()
    state.add(StepResult(1, 0.4, 1.0, correct=3, examples=3, tokens=20))
    state.add(StepResult(2, math.nan, math.nan, 0, examples=9, tokens=50, skipped=True))
    assert (state.skipped, state.skipped_in_a_row, state.step) == (1, 1, 2)
    state.add(StepResult(3, 2.0, 1.0, correct=0, examples=1, tokens=7))
    assert (state.skipped, state.skipped_in_a_row, state.tokens) == (1, 0, 77)
    metrics = state.end_epoch()
    assert (metrics.n, metrics.accuracy) == (4, 0.75), "the skipped step has no say"
    assert math.isclose(metrics.loss, 0.8), "over examples; over batches it is 1.2"
    assert math.isnan(state.end_epoch().loss), "the sums start again"


def test_state_with_an_average() -> None:
    def state(**average: AveragedModel) -> TrainingState:
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        return TrainingState(model, optimizer, make_scaler(torch.device("cpu"), "fp32"), **average)

    model = nn.Linear(1, 1, bias=False)
    plain, average = state(), state(averaged=AveragedModel(model))
    assert plain.outcome is model and average.outcome is average.averaged.module
    assert "averaged" in average.state_dict() and "averaged" not in plain.state_dict()
    with pytest.raises(ValueError, match="does not fit this model: 'averaged'"):
        average.load_state_dict(plain.state_dict())


def test_pack_and_unpack_are_inverse() -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1)
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    odd = [None, True, 2**40, 1e-7, {}, torch.eye(3)[:, 1], torch.ones(2)]
    state = {"optimizer": optimizer.state_dict(), "odd": odd}
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(state, tensors))
    found = _unpack(json.loads(text), tensors)
    steps = found["optimizer"]["state"]
    assert list(steps) == [0, 1], "the keys must come back as numbers"
    assert found["odd"][:5] == odd[:5]
    assert all(map(torch.equal, found["odd"][5:], odd[5:]))
    assert found["optimizer"]["param_groups"][0]["betas"] == [0.9, 0.999], "a list now"
    for index, moments in state["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(steps[index][name], value), name
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_checkpoints_come_back_or_say_what_is_wrong() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder, ramp = Path(base), torch.arange(5.0)
        for step in (9, 10, 200):
            path = save_checkpoint(folder, step, {"step": step, "weight": ramp * step})
        names = [f"step_00000{step}.safetensors" for step in ("010", "200")]
        assert [p.name for p in checkpoint_files(folder)] == names, "two are kept"
        for step, saved in zip((10, 200), checkpoint_files(folder), strict=True):
            found = load_checkpoint(saved)
            assert found["step"] == step and torch.equal(found["weight"], ramp * step)
        content, one = path.read_bytes(), {"x": torch.ones(2)}
        cuts = [content[:n] for n in (1, 8, 40, len(content) // 2, len(content) - 1)]
        incomplete = "is not a complete safetensors file"
        foreign = "is a safetensors file, but not a checkpoint"
        for reason, contents in (
            (incomplete, [b"hello", b"", *cuts]),
            (foreign, [save(one), save(one, {"state": "{1"}), save(one, {"state": "[1"})]),
        ):
            for wrong in contents:
                path.write_bytes(wrong)
                with pytest.raises(ValueError, match=f"{re.escape(str(path))} {reason}"):
                    load_checkpoint(path)


def test_same_run_names_what_differs() -> None:
    ours = {"seed": 1, "training.epochs": 3}
    _same_run(Path("x"), {"training.epochs": 3, "seed": 1}, ours)
    for theirs, words in (
        ({"training.epochs": 2}, "x belongs to another run: seed is None there, 1 here"),
        ({"seed": 1, "training.epochs": 2}, "training.epochs is 2 there, 3 here"),
        (ours | {"more": True}, "more is True there, None here"),
    ):
        with pytest.raises(ValueError, match=words):
            _same_run(Path("x"), theirs, ours)
