# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""Checkpoints: the whole state of a run in one file, without pickle."""

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from minitransformer.evaluate import Metrics
from minitransformer.experiment.folder import _write_atomically, checkpoint_files
from minitransformer.train import StepResult

__all__ = ["TrainingState", "load_checkpoint", "restore", "save_checkpoint"]


# chapters/workshop_runs.md · The whole state in one file
def _random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of PyTorch's random number generators: the CPU's, and the device's own if that is another."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        which = () if device.type == "mps" else (device,)  # of mps there is one
        state[device.type] = torch.get_device_module(device).get_rng_state(*which)
    return state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Go back to what `_random_state` returned; a device of a kind that is not in it keeps its own."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        which = () if device.type == "mps" else (device,)
        torch.get_device_module(device).set_rng_state(state[device.type], *which)


@dataclass(kw_only=True)
class _Counts:
    """What a run counts; the last three are sums over the epoch that is under way."""

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    examples: int = 0
    correct: int = 0
    loss_sum: float = 0.0

    def add(self, result: StepResult) -> None:
        """Count one step; the means of the epoch leave a skipped one out."""
        self.step = result.step
        self.tokens += result.tokens
        self.skipped += bool(result.skipped)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if result.skipped else 0
        if not result.skipped:
            self.examples += result.examples
            self.correct += int(result.correct)
            self.loss_sum += float(result.loss) * result.examples

    def end_epoch(self) -> Metrics:
        """The mean over the epoch's steps, NaN if all were skipped; the sums start again at zero."""
        n, correct, loss = self.examples, self.correct, self.loss_sum
        self.examples, self.correct, self.loss_sum = 0, 0, 0.0
        return Metrics(n, correct / n, loss / n) if n else Metrics(0, math.nan, math.nan)


@dataclass
class TrainingState(_Counts):
    """Everything that changes while a run goes on, and so everything that a checkpoint holds.

    `averaged`, if there is one, follows the model's weights as an exponential moving average. `step` counts updates,
    also skipped ones; the position in the data follows from it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def outcome(self) -> nn.Module:
        """The model that a run ends with: the average, if one is kept."""
        return self.model if self.averaged is None else self.averaged.module

    def state_dict(self) -> dict[str, Any]:
        """All of it as `save_checkpoint` takes it, with the state of the random number generators."""
        whole = {name: part.state_dict() for name, part in _parts(self)}
        counts = {item.name: getattr(self, item.name) for item in fields(_Counts)}
        return whole | {"counts": counts, "random": _random_state(self.device)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned; that of another model is a ValueError."""
        try:
            for name, part in _parts(self):
                part.load_state_dict(saved[name])
        except (RuntimeError, KeyError, ValueError) as error:
            text = f"the checkpoint does not fit this model: {error}"
            raise ValueError(" ".join(text.split())) from None
        for name, value in saved["counts"].items():
            setattr(self, name, value)
        _set_random_state(saved["random"], self.device)


def _parts(state: TrainingState) -> Iterator[tuple[str, Any]]:
    """The objects in a state that have one of their own, with their names."""
    for name in ("model", "optimizer", "scaler", "averaged"):
        if (part := getattr(state, name)) is not None:
            yield name, part


def _pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """`value` as JSON can hold it: each tensor inside goes to `tensors` under a name and leaves that name behind."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        pairs = value.items()
        return {"dict": [[k, _pack(item, tensors, f"{name}/{k}")] for k, item in pairs]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors, f"{name}/{i}") for i, item in enumerate(value)]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_pack` was given (tuples come back as lists)."""
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _unpack(item, tensors) for key, item in value["dict"]}


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a run's state after `step` updates to one safetensors file; the two newest checkpoints are kept."""
    tensors: dict[str, Tensor] = {}
    record = json.dumps(_pack(state, tensors))
    path = folder / "checkpoints" / f"step_{step:08d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    _write_atomically(path, save(tensors, {"state": record}))
    for old in checkpoint_files(folder)[:-2]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote; a ValueError if the file is incomplete or is something else."""
    try:
        with safe_open(path, framework="pt") as file:
            record = (file.metadata() or {}).get("state", "")
            tensors = {
                name: file.get_tensor(name).clone()
                for name in file.keys()  # noqa: SIM118
            }
        return _unpack(json.loads(record), tensors)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of a run") from None


def _same_run(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuse to go on with another run, in one sentence that names the first setting that differs."""
    for name in [*ours, *theirs]:  # settings first: they explain the rest
        there, here = theirs.get(name), ours.get(name)
        if there != here:
            raise ValueError(f"{path} belongs to another run: {name} is {there!r} there, {here!r} here")


def restore(folder: Path, state: TrainingState, ours: dict[str, Any]) -> bool:
    """Bring `state` to the newest sound checkpoint, and the metrics back to what they were then; False if there is none.

    `ours` is what the checkpoint's own "identity" must equal (see `_same_run`). A checkpoint that cannot be used is
    named on standard error, and the one before it is tried.

    Raises:
        ValueError: if there are checkpoints, but none can be used.
    """
    log, files, problem = folder / "metrics.jsonl", checkpoint_files(folder), ""
    for path in reversed(files):
        try:
            saved = load_checkpoint(path)
            _same_run(path, saved.get("identity", {}), ours)
            state.load_state_dict(saved)
            size = saved["log_bytes"]
            if not log.is_file() or log.stat().st_size < size:
                raise ValueError(
                    f"{log} is missing or shorter than the {size} bytes that the checkpoint counted"
                )
            os.truncate(log, size)  # last, when nothing else can go wrong
            return True
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            known = isinstance(error, ValueError)
            problem = str(error) if known else f"{path} is damaged: {error!r}"
            print(f"warning: {problem}", file=sys.stderr)
    if files:
        raise ValueError(
            f"no checkpoint in {folder} can be used, the oldest because {problem}; --overwrite starts anew"
        )
    log.unlink(missing_ok=True)
    return False
