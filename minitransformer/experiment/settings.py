# Generated from chapters/workshop_settings.md; edit the chapter, not this file.
"""The settings of a run as dataclasses, read from YAML and the command line."""

import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import asdict, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import torch
import yaml
from jsonargparse import auto_cli, set_loader
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from minitransformer.model import ModelConfig, require
from minitransformer.tokenizer import SPECIAL_TOKENS

__all__ = [
    "AtLeastOne", "DataConfig", "Device", "Name", "NotNegative", "PretrainConfig", "Rate", "RunConfig",
    "Seed", "Seeds", "Share", "TrainingConfig", "check_model", "one_sentence", "read_settings",
    "save_settings", "settings",
]  # fmt: skip

# chapters/workshop_settings.md · The settings of a run as dataclasses, read from YAML and the command line.
_Settings = TypeVar("_Settings")

AtLeastOne = Annotated[int, Field(ge=1)]

Share = Annotated[float, Field(ge=0, lt=1)]

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _different(seeds: list[int]) -> list[int]:
    require(0 < len(seeds) == len(set(seeds)), "seeds", seeds, "different numbers, one at least")
    return seeds


def _folder_name(name: str) -> str:
    require(re.fullmatch(r"[\w-][\w.-]*", name) is not None, "name", name, "a plain folder name")
    return name


def _device(name: str) -> str:
    """ "auto", or what PyTorch calls some device, wherever that may be."""
    try:
        torch.device("cpu" if name == "auto" else name)
    except (RuntimeError, TypeError):
        known = "auto, cpu or an accelerator that PyTorch knows, such as cuda, cuda:1, mps or xpu"
        require(False, "training.device", name, known)
    return name


Seeds = Annotated[list[int], AfterValidator(_different)]

Name = Annotated[str, AfterValidator(_folder_name)]

Device = Annotated[str, AfterValidator(_device)]


@dataclass_transform(frozen_default=True)
def settings(key: str = "") -> Callable[[type[_Settings]], type[_Settings]]:
    """The decorator of settings: a frozen dataclass that pydantic checks; what is wrong becomes one sentence.

    `key` is where the settings stand in a file: "training" makes it say `training.epochs`.
    """

    def decorate(kind: type[_Settings]) -> type[_Settings]:
        made = dataclass(kind, frozen=True, config=ConfigDict(strict=True))
        make = made.__init__

        @wraps(make)
        def __init__(self: _Settings, *args: Any, **values: Any) -> None:
            try:
                make(self, *args, **values)
            except ValidationError as error:
                raise ValueError(_refusal(key, error)) from None

        made.__init__ = __init__  # type: ignore[method-assign]
        return made

    return decorate


def _refusal(key: str, error: ValidationError) -> str:
    """The first thing that pydantic found, with the setting's name, what is allowed, and what it was."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    name = ".".join(str(part) for part in (key, *first["loc"]) if part)
    return f"{name} {first['msg'].replace('Input should', 'must')}, got {first['input']!r}"


@settings("data")
class DataConfig:
    """Which examples a run sees.

    Attributes:
        name: "sst2", or "toy" for the generated reviews; "files" for those that `train` and `validation` name.
        min_frequency: a word enters the vocabulary if the training texts hold it this often.
        train_size: so many training examples, drawn at random; None takes them all.
        group_by_length: whether texts of similar length share a batch, which saves padding.
        tokenizer: a folder with a `tokenizer.json` to be used; None makes a vocabulary of the training texts' words.
        train, validation, test: files of labelled texts (see `read_examples`), from the current folder; `test` may be None.
    """

    name: Literal["sst2", "toy", "files"] = "files"
    min_frequency: AtLeastOne = 1
    train_size: Annotated[int | None, Field(ge=1)] = None
    group_by_length: bool = False
    tokenizer: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None

    @model_validator(mode="after")
    def _examples_come_from_a_name_or_from_files(self) -> "DataConfig":
        for split in ("train", "validation", "test"):
            path = getattr(self, split)
            if self.name != "files":
                require(path is None, f"data.{split}", path, f"null where data.name is {self.name!r}")
            elif split != "test" or path is not None:
                require(bool(path), f"data.{split}", path, "a file, unless data.name is 'sst2' or 'toy'")
        return self

    def source(self, split: str) -> str:
        """The first argument of `load_examples`: the name of the data set, or the file of the split."""
        if self.name != "files":
            return self.name
        path = {"train": self.train, "validation": self.validation, "test": self.test}.get(split)
        if path is None:
            raise ValueError(f"the run's config names no file for the split {split!r}: add data.{split}")
        return path


@settings("training")
class TrainingConfig:
    """How the weights are found: AdamW, a schedule for its rate, gradients clipped by their norm.

    A batch is worked through in `micro_batches` parts. `warmup` is the share of all updates over which the rate
    rises from zero. With an `ema` above 0 the run ends with an exponential moving average of its weights, which keeps
    that share of the old average in every step. With an `r_drop` above 0 each batch passes twice, and the loss grows
    by so many times the `disagreement` of the two answers. After `max_skipped` updates in a row without a finite loss
    and gradient the run stops. Every `log_every`-th update gets a record; every `checkpoint_every`-th, and the last
    of an epoch, a checkpoint.
    """

    epochs: AtLeastOne = 1
    batch_size: AtLeastOne = 64
    micro_batches: AtLeastOne = 1
    learning_rate: Rate = 5e-4
    schedule: Literal["constant", "linear"] = "constant"
    warmup: Share = 0.0
    weight_decay: NotNegative = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    device: Device = "auto"
    autocast: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    max_skipped: AtLeastOne = 10
    log_every: AtLeastOne = 10
    checkpoint_every: AtLeastOne = 500
    tensorboard: bool = False
    ema: Share = 0.0
    r_drop: NotNegative = 0.0

    @model_validator(mode="after")
    def _parts_fit_into_a_batch(self) -> "TrainingConfig":
        allowed = f"at most training.batch_size={self.batch_size}"
        require(self.micro_batches <= self.batch_size, "training.micro_batches", self.micro_batches, allowed)
        return self


@settings()
class RunConfig:
    """Everything that decides a run: on the same machine and versions, the same values give the same run.

    `initial` names the folder of a pretrained encoder, whose weights and tokenizer the run starts from.
    `model.vocab_size` is an upper bound; the config that a run saves holds the size that its words needed.
    """

    name: Name
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: Seed = 0
    initial: str | None = None

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "RunConfig":
        check_model(self.model)
        twice = self.training.r_drop
        alike = twice > 0 and self.model.dropout == 0  # without dropout, two passes are one
        require(not alike, "training.r_drop", twice, "0 where model.dropout is 0")
        own = self.initial is None or self.data.tokenizer is None
        require(
            own, "data.tokenizer", self.data.tokenizer, "null where initial is given, which brings its own"
        )
        return self


@settings()
class PretrainConfig:
    """Everything that decides a pretraining run.

    Attributes:
        corpus: "imdb", "imdb_train" for its 25,000 labelled training reviews alone, or "toy" for generated reviews.
        chunk_length: reviews are read in pieces of at most so many tokens, between [CLS] and [SEP].
        held_out: so many reviews are not read, and serve to measure.
        mask_rate: the share of tokens that is hidden.
        label_weight: how much the loss of the review's label counts beside that of the tokens.
        model: `vocab_size` is an upper bound for the pieces that the tokenizer learns.
        initial: the folder of an encoder that goes on from where it is, with its own tokenizer.
    """

    name: Name
    corpus: Literal["imdb", "imdb_train", "toy"]
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    chunk_length: AtLeastOne = 64
    held_out: AtLeastOne = 500
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    label_weight: NotNegative = 0.0
    seed: Seed = 0
    initial: str | None = None

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "PretrainConfig":
        check_model(self.model)
        longest, size = self.model.max_length - 2, self.model.vocab_size
        allowed = f"at most {longest} (model.max_length less two for [CLS] and [SEP])"
        require(self.chunk_length <= longest, "chunk_length", self.chunk_length, allowed)
        require(size <= 2**16, "model.vocab_size", size, "at most 65536, the ids that 16 bits can hold")
        for name, neutral in {"micro_batches": 1, "r_drop": 0, "ema": 0}.items():
            value = getattr(self.training, name)
            require(value == neutral, f"training.{name}", value, f"{neutral} when pretraining")
        return self


def check_model(model: ModelConfig) -> None:
    """What the model of every run must fulfil."""
    require(model.padding_id == 0, "model.padding_id", model.padding_id, "0, the id of [PAD]")
    require(model.num_labels == 2, "model.num_labels", model.num_labels, "2 (negative, positive)")
    special, shortest = len(SPECIAL_TOKENS), 3  # [CLS], one word, [SEP]
    require(model.vocab_size >= special, "model.vocab_size", model.vocab_size, f"at least {special}")
    require(model.max_length >= shortest, "model.max_length", model.max_length, f"at least {shortest}")


def read_settings(kind: type[_Settings], path: str | Path, overrides: Sequence[str] = ()) -> _Settings:
    """Settings, such as a `RunConfig`, from a YAML file and from `overrides` such as `["--seed", "3"]`, which win over it.

    Raises:
        ValueError: one sentence that names the file and the key, its value and what is allowed.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no config file {path}")
    # YAML 1.2: `no` is a word, 1e-3 a number, and a key that stands twice an error
    set_loader("settings", YAML(typ="safe", pure=True).load, exceptions=(YAMLError,))
    how = {"as_positional": False, "exit_on_error": False, "allow_abbrev": False, "parser_mode": "settings"}
    try:
        return auto_cli(kind, args=["--config", str(path), *overrides], **how)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_sentence(error, kind)}") from None


def one_sentence(error: Exception, kind: type = RunConfig) -> str:
    """What jsonargparse found wrong with settings, in the words of this book."""
    text = " ".join(str(error).split()).split(" To suppress this check")[0]
    text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("typing.", "")
    if found := re.fullmatch(r'Parser key "(.+?)": Expected an? (.+)\. Got value: (.*)', text):
        allowed = re.sub(r"type Literal\[(.*)\]", r"one of \1", f"type {found[2]}")
        allowed = allowed if allowed.startswith("one of") else f"of {allowed}"
        return f"{found[1]} must be {allowed}, got {found[3]!r}"
    if "not accept" in text or text.startswith("unrecognized"):
        return f"{text}; allowed are {', '.join(_keys(kind))}"
    if text.startswith("Unexpected config"):
        return "the file must map keys to values, as in 'seed: 0'"
    return text


def _keys(kind: Any, prefix: str = "") -> list[str]:
    """Every key that a file of settings may hold, written as on the command line: seed, data.name, …"""
    keys: list[str] = []
    for item in fields(kind):
        deep = is_dataclass(item.type)
        keys += _keys(item.type, f"{prefix}{item.name}.") if deep else [prefix + item.name]
    return keys


def save_settings(config: Any, path: str | Path) -> None:
    """Write settings as YAML, which `read_settings` reads back to an equal object."""
    Path(path).write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")
