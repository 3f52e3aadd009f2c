# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The settings of a run as dataclasses, read from YAML and the command line."""

import math
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import auto_cli

from minitransformer.model import ModelConfig
from minitransformer.tokenizer import SPECIAL_TOKENS

__all__ = [
    "DataConfig",
    "RunConfig",
    "TrainingConfig",
    "config_keys",
    "load_config",
    "one_sentence",
    "require",
    "save_config",
]


# chapters/day05_training.md · Settings: dataclasses and YAML
def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a setting with one sentence that names it, what it was and what it may be."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


# chapters/day05_training.md · Settings: dataclasses and YAML
@dataclass(frozen=True)
class DataConfig:
    """Which examples a run sees.

    Attributes:
        name: "sst2", or "toy" for the generated reviews.
        min_frequency: a word enters the vocabulary if the training texts hold it this often.
        train_size: so many training examples, drawn at random; None takes them all.
    """

    name: Literal["sst2", "toy"]
    min_frequency: int = 1
    train_size: int | None = None

    def __post_init__(self) -> None:
        require(self.name in ("sst2", "toy"), "data.name", self.name, "'sst2' or 'toy'")
        require(self.min_frequency >= 1, "data.min_frequency", self.min_frequency, "at least 1")
        size = self.train_size
        require(size is None or size >= 1, "data.train_size", size, "at least 1, or null for all")


# chapters/day05_training.md · Settings: dataclasses and YAML
@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found: AdamW with a constant learning rate, gradients clipped by their norm.

    Every `log_every`-th step is written to the run's metrics, beginning with the first.
    """

    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every"):
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1")
        rate, decay, norm = self.learning_rate, self.weight_decay, self.max_grad_norm
        require(0 < rate < math.inf, "training.learning_rate", rate, "positive and finite")
        require(0 <= decay < math.inf, "training.weight_decay", decay, "finite and not negative")
        require(norm > 0, "training.max_grad_norm", norm, "positive (.inf never clips)")


# chapters/day05_training.md · Settings: dataclasses and YAML
@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run: on the same machine and versions, the same values give the same run.

    `model.vocab_size` is an upper bound; the config that a run saves holds the size that its words needed.
    """

    name: str
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[\w-][\w.-]*", self.name) is not None, "name", self.name, "a plain folder name"
        )
        require(0 <= self.seed < 2**63, "seed", self.seed, "in 0 … 2^63 - 1")
        model = self.model
        require(model.padding_id == 0, "model.padding_id", model.padding_id, "0, the id of [PAD]")
        require(model.num_labels == 2, "model.num_labels", model.num_labels, "2 (negative, positive)")
        special, shortest = len(SPECIAL_TOKENS), 3  # [CLS], one word, [SEP]
        require(model.vocab_size >= special, "model.vocab_size", model.vocab_size, f"at least {special}")
        require(model.max_length >= shortest, "model.max_length", model.max_length, f"at least {shortest}")


# chapters/day05_training.md · Settings: dataclasses and YAML
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's settings from a YAML file; `overrides` such as `["--training.epochs", "3"]` win over it.

    Raises:
        ValueError: one sentence that names the file and the key, its value and what is allowed.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no config file {path}")
    arguments = ["--config", str(path), *overrides]
    try:
        return auto_cli(
            RunConfig, args=arguments, as_positional=False, exit_on_error=False, allow_abbrev=False
        )
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_sentence(error)}") from None


# chapters/day05_training.md · Settings: dataclasses and YAML
def one_sentence(error: Exception) -> str:
    """What jsonargparse found wrong with a config, in the words of this book."""
    text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(error).split())).replace("typing.", "")
    if found := re.fullmatch(r'Parser key "(.+?)": Expected an? (.+)\. Got value: (.*)', text):
        return f"{found[1]} must be of type {found[2]}, got {found[3]!r}"
    if "not accept" in text or text.startswith("unrecognized"):
        return f"{text}; allowed are {', '.join(config_keys(RunConfig))}"
    if text.startswith("Unexpected config"):
        return "the file must map keys to values, as in 'seed: 0'"
    return text


# chapters/day05_training.md · Settings: dataclasses and YAML
def config_keys(kind: type, prefix: str = "") -> list[str]:
    """Every key that a config file may hold, written as on the command line: seed, data.name, …"""
    keys = []
    for item in fields(kind):
        name = prefix + item.name
        inner = item.type
        if isinstance(inner, type) and is_dataclass(inner):
            keys += config_keys(inner, f"{name}.")
        else:
            keys.append(name)
    return keys


# chapters/day05_training.md · Settings: dataclasses and YAML
def save_config(config: RunConfig, path: str | Path) -> None:
    """Write a run's settings as YAML, which `load_config` reads back to an equal `RunConfig`."""
    Path(path).write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")
