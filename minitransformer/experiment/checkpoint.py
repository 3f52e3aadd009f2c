# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""Checkpoints: the whole state of a run in one file, without pickle."""

import json
import math
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
from minitransformer.experiment.folder import checkpoint_files, write_atomically
from minitransformer.train import StepResult

__all__ = [
    "CHECKPOINTS_KEPT", "TrainingState", "load_checkpoint", "load_state_dict", "pack", "random_state",
    "restore", "same_run", "save_checkpoint", "set_random_state", "state_dict", "unpack",
]  # fmt: skip


# chapters/workshop_runs.md · Checkpoints: the whole state of a run in one file, without pickle.
def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of PyTorch's random number generators: the CPU's, and the device's own if that is another."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        which = () if device.type == "mps" else (device,)  # of mps there is one
        state[device.type] = torch.get_device_module(device).get_rng_state(*which)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Go back to what `random_state` returned; a device of a kind that is not in it keeps its own."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        which = () if device.type == "mps" else (device,)
        torch.get_device_module(device).set_rng_state(state[device.type], *which)


@dataclass
class TrainingState:
    """Everything that changes while a run goes on, and so everything that a checkpoint holds.

    `averaged`, if there is one, follows the model's weights as an exponential moving average. `step` counts updates,
    also skipped ones; the position in the data follows from it. The sums belong to the epoch that is under way.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None = None
    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    examples: int = 0
    correct: int = 0
    loss_sum: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def outcome(self) -> nn.Module:
        """The model that a run ends with: the average, if one is kept."""
        return self.model if self.averaged is None else self.averaged.module

    def parts(self) -> Iterator[tuple[str, Any]]:
        """The fields that have a state of their own, with their names."""
        for name in ("model", "optimizer", "scaler", "averaged"):
            if (part := getattr(self, name)) is not None:
                yield name, part

    def counts(self) -> dict[str, int | float]:
        """The other fields, which are numbers."""
        return {item.name: getattr(self, item.name) for item in fields(self)[4:]}

    def add(self, result: StepResult) -> None:
        """Count one step; the means of the epoch leave a skipped one out."""
        self.step = result.step
        self.tokens += result.tokens
        self.skipped += result.skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if result.skipped else 0
        if not result.skipped:
            self.examples += result.examples
            self.correct += result.correct
            self.loss_sum += result.loss * result.examples

    def end_epoch(self) -> Metrics:
        """The mean over the epoch's steps, every example weighing the same; the sums start again at zero.

        If all steps were skipped, there is no mean, and both numbers are NaN.
        """
        n, correct, loss_sum = self.examples, self.correct, self.loss_sum
        self.examples, self.correct, self.loss_sum = 0, 0, 0.0
        return Metrics(n, correct / n, loss_sum / n) if n else Metrics(0, math.nan, math.nan)


def state_dict(state: TrainingState) -> dict[str, Any]:
    """All of a state as `save_checkpoint` takes it, with that of the random number generators."""
    whole = {name: part.state_dict() for name, part in state.parts()}
    return whole | {"counts": state.counts(), "random": random_state(state.device)}


def load_state_dict(state: TrainingState, saved: dict[str, Any]) -> None:
    """Go back to what `state_dict` returned; that of another model is a ValueError."""
    try:
        for name, part in state.parts():
            part.load_state_dict(saved[name])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"the checkpoint does not fit this model: {' '.join(str(error).split())}") from None
    for name, value in saved["counts"].items():
        setattr(state, name, value)
    set_random_state(saved["random"], state.device)


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """`value` as JSON can hold it: each tensor inside goes to `tensors` under a name and leaves that name behind.

    A dict becomes a list of pairs, because JSON would turn its integer keys into strings.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, pack(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [pack(item, tensors, f"{name}/{index}") for index, item in enumerate(value)]
    return value


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given (tuples come back as lists)."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: unpack(item, tensors) for key, item in value["dict"]}


CHECKPOINTS_KEPT = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a run's state after `step` updates to one safetensors file; the two newest checkpoints are kept."""
    tensors: dict[str, Tensor] = {}
    record = json.dumps(pack(state, tensors))
    path = folder / "checkpoints" / f"step_{step:08d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, save(tensors, {"state": record}))
    for old in checkpoint_files(folder)[:-CHECKPOINTS_KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote.

    Raises:
        ValueError: one sentence, if the file is incomplete or is something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = (file.metadata() or {}).get("state", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return unpack(json.loads(record), tensors)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of a run") from None


def same_run(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuse to go on with another run, in one sentence that names the first setting that differs."""
    for name in dict.fromkeys([*ours, *theirs]):  # settings first: they explain data that differs
        if theirs.get(name) != ours.get(name):
            there, here = theirs.get(name), ours.get(name)
            raise ValueError(f"{path} belongs to another run: {name} is {there!r} there, {here!r} here")


def restore(folder: Path, state: TrainingState, ours: dict[str, Any]) -> bool:
    """Bring `state` to the newest sound checkpoint, and the metrics back to what they were then; False if there is none.

    `ours` is what the checkpoint's own "identity" must equal (see `same_run`). A checkpoint that cannot be used is
    named on standard error, and the one before it is tried.

    Raises:
        ValueError: if there are checkpoints, but none can be used.
    """
    log, files, problem = folder / "metrics.jsonl", checkpoint_files(folder), ""
    for path in reversed(files):
        try:
            saved = load_checkpoint(path)
            same_run(path, saved.get("identity", {}), ours)
            load_state_dict(state, saved)
            _cut(log, saved["log_bytes"])  # last: nothing is cut off for a checkpoint that cannot be used
            return True
        except (ValueError, KeyError) as error:
            problem = str(error)
            print(f"warning: {problem}", file=sys.stderr)
    if files:
        raise ValueError(
            f"no checkpoint in {folder} can be used, the oldest because {problem}; --overwrite starts anew"
        )
    log.unlink(missing_ok=True)
    return False


def _cut(path: Path, size: int) -> None:
    """Shorten a file to `size` bytes."""
    if not path.is_file() or path.stat().st_size < size:
        raise ValueError(f"{path} is missing or shorter than the {size} bytes that the checkpoint counted")
    with path.open("r+b") as file:
        file.truncate(size)
