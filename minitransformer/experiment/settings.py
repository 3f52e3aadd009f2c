# Generated from chapters/workshop_settings.md; edit the chapter, not this file.
"""The settings of a run as dataclasses, read from YAML and the command line."""

import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import asdict, field, fields, is_dataclass
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import torch
from jsonargparse import auto_cli, set_loader
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from minitransformer.model import ModelConfig, _require
from minitransformer.tokenizer import SPECIAL_TOKENS

__all__ = ["DataConfig", "PretrainConfig", "RunConfig", "TrainingConfig", "read_settings", "settings"]

# chapters/workshop_settings.md · The range stands in the field
_Settings = TypeVar("_Settings")


@dataclass_transform(frozen_default=True)  # so that type checkers know the fields
def settings(key: str = "") -> Callable[[type[_Settings]], type[_Settings]]:
    """The decorator of settings: a frozen dataclass, checked by pydantic, refused in one sentence.

    `key` is where the settings stand in a file: "training" makes it say `training.epochs`.
    """

    def decorate(kind: type[_Settings]) -> type[_Settings]:
        rules = ConfigDict(strict=True, extra="forbid")
        made: Any = dataclass(kind, frozen=True, config=rules)
        make = made.__init__

        @wraps(make)
        def __init__(self: _Settings, *args: Any, **values: Any) -> None:
            try:
                make(self, *args, **values)
            except ValidationError as error:
                raise ValueError(_refusal(made, key, error)) from None

        made.__init__ = __init__
        return made

    return decorate


def _refusal(kind: Any, key: str, error: ValidationError) -> str:
    """The first thing that pydantic found: the setting's name, what is allowed, what it was."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":  # from a check of our own, which names it all
        return str(first["ctx"]["error"])
    names: dict[Any, Any] = dict(enumerate(item.name for item in fields(kind)))
    at, *inside = first["loc"]  # its name, or its number if the value came unnamed
    where = (key, names.get(at, at), *inside)
    name = ".".join(str(part) for part in where if part != "")
    if not first["msg"].startswith("Input should"):
        return f"{name}: {first['msg'].lower()}"
    return f"{name} {first['msg'].replace('Input should', 'must')}, got {first['input']!r}"


# chapters/workshop_settings.md · What a run is
_AtLeastOne = Annotated[int, Field(ge=1)]

_Share = Annotated[float, Field(ge=0, lt=1)]

_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _different(seeds: list[int]) -> list[int]:
    different = 0 < len(seeds) == len({seed for seed in seeds if 0 <= seed < 2**63})
    _require(different, "seeds", seeds, "different numbers from 0, one at least")
    return seeds


def _folder_name(name: str) -> str:
    plain = re.fullmatch(r"[\w-][\w.-]*", name) is not None
    _require(plain, "name", name, "a plain folder name")
    return name


def _known_device(name: str) -> str:
    try:
        torch.device("cpu" if name == "auto" else name)
    except (RuntimeError, TypeError):
        some = "an accelerator that PyTorch knows, such as cuda, cuda:1, mps or xpu"
        _require(False, "training.device", name, f"auto, cpu or {some}")
    return name


_Seeds = Annotated[list[int], AfterValidator(_different)]

_Name = Annotated[str, AfterValidator(_folder_name)]


@settings("data")
class DataConfig:
    """Which examples a run sees.

    Attributes:
        name: "sst2", "toy" for the generated reviews, or "files".
        min_frequency: how often the training texts must hold a word to give it an id.
        train_size: so many training examples, drawn at random; None takes them all.
        group_by_length: whether texts of similar length share a batch, to save padding.
        tokenizer: a folder with a `tokenizer.json`; None makes a vocabulary of words.
        train, validation, test: with "files", labelled texts (`test` is optional).
    """

    name: Literal["sst2", "toy", "files"] = "files"
    min_frequency: _AtLeastOne = 1
    train_size: Annotated[int | None, Field(ge=1)] = None
    group_by_length: bool = False
    tokenizer: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None

    @model_validator(mode="after")
    def _examples_come_from_a_name_or_from_files(self) -> "DataConfig":
        given = "a file, unless data.name is 'sst2' or 'toy'"
        for split in ("train", "validation", "test"):
            own, at = getattr(self, split), f"data.{split}"
            if self.name != "files":
                _require(own is None, at, own, f"null where data.name is {self.name!r}")
            elif split != "test" or own is not None:
                _require(bool(own), at, own, given)
        return self

    def source(self, split: str) -> str:
        """What `load_examples` is asked for: the name of the data set, or a file."""
        path = getattr(self, split, None) if self.name == "files" else self.name
        where = f"the split {split!r}: add data.{split}"
        if not path:
            raise ValueError(f"the run's config names no file for {where}")
        return str(path)


@settings("training")
class TrainingConfig:
    """How the weights are found: AdamW, a schedule for its rate, clipped gradients.

    A batch is worked through in `micro_batches` parts. `warmup` is the share of all updates
    over which the rate rises from zero. `ema` is the share of the old average that each step
    keeps in an average of the weights, with which the run ends if it is above 0. With an
    `r_drop` above 0 each batch passes twice, and the loss grows by so many times the
    `disagreement` of the two answers. After `max_skipped` updates in a row without a finite
    loss and gradient the run stops. With `minutes`, `epochs` becomes what fits into them on
    the device at hand. Every `log_every`-th update gets a record. A
    checkpoint is due every `checkpoint_every` updates, at an epoch's end, and five
    minutes after the last one.
    """

    epochs: _AtLeastOne = 1
    minutes: Annotated[float | None, Field(gt=0, le=1e6)] = None
    batch_size: _AtLeastOne = 64
    micro_batches: _AtLeastOne = 1
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-4
    schedule: Literal["constant", "linear"] = "constant"
    warmup: _Share = 0.0
    weight_decay: _NotNegative = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    autocast: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    max_skipped: _AtLeastOne = 10
    log_every: _AtLeastOne = 10
    checkpoint_every: _AtLeastOne = 500
    tensorboard: bool = False
    ema: _Share = 0.0
    r_drop: _NotNegative = 0.0

    @model_validator(mode="after")
    def _parts_fit_into_a_batch(self) -> "TrainingConfig":
        parts, most = self.micro_batches, self.batch_size
        allowed = f"at most training.batch_size={most}"
        _require(parts <= most, "training.micro_batches", parts, allowed)
        return self


@settings()
class RunConfig:
    """All that decides a run.

    The same machine, versions, files and values (`minutes` aside) give the same run.

    `initial` names the folder of a pretrained encoder, which brings weights and tokenizer.
    `model.vocab_size` is an upper bound; a saved config holds the size that its words needed.
    """

    name: _Name
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: _Seed = 0
    initial: str | None = None

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "RunConfig":
        _check_model(self.model)
        twice, own = self.training.r_drop, self.data.tokenizer
        differ = twice == 0 or self.model.dropout > 0  # without it, two passes are one
        _require(differ, "training.r_drop", twice, "0 where model.dropout is 0")
        one = self.initial is None or own is None
        allowed = "null where initial is given, which brings its own"
        _require(one, "data.tokenizer", own, allowed)
        return self


def _check_model(model: ModelConfig) -> None:
    """What the model of every run must fulfil."""
    special, shortest = len(SPECIAL_TOKENS), 3  # [CLS], one word, [SEP]
    for name, holds, allowed in (
        ("padding_id", model.padding_id == 0, "0, the id of [PAD]"),
        ("num_labels", model.num_labels == 2, "2 (negative, positive)"),
        ("vocab_size", model.vocab_size >= special, f"at least {special}"),
        ("max_length", model.max_length >= shortest, f"at least {shortest}"),
    ):
        _require(holds, f"model.{name}", getattr(model, name), allowed)


# chapters/workshop_settings.md · What a reading is
@settings()
class PretrainConfig:
    """All that decides a pretraining run.

    Attributes:
        corpus: "imdb", "imdb_train" for its labelled training reviews alone, or "toy".
        chunk_length: reviews are read in pieces of so many tokens, between [CLS] and [SEP].
        held_out: so many reviews are not read, and serve to measure.
        mask_rate: the share of tokens that is hidden.
        label_weight: how much a review's label counts beside its tokens.
        model: `vocab_size` bounds the pieces that the tokenizer learns.
        initial: the folder of an encoder that reads on, with its own tokenizer.
    """

    name: _Name
    corpus: Literal["imdb", "imdb_train", "toy"]
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    chunk_length: _AtLeastOne = 64
    held_out: _AtLeastOne = 500
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    label_weight: _NotNegative = 0.0
    seed: _Seed = 0
    initial: str | None = None

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "PretrainConfig":
        _check_model(self.model)
        chunk, size = self.chunk_length, self.model.vocab_size
        most = self.model.max_length - 2
        allowed = f"at most {most} (model.max_length less two for [CLS] and [SEP])"
        _require(chunk <= most, "chunk_length", chunk, allowed)
        allowed = "at most 65536, the ids that 16 bits can hold"
        _require(size <= 2**16, "model.vocab_size", size, allowed)
        for name, neutral in {"micro_batches": 1, "r_drop": 0, "ema": 0}.items():
            value, allowed = getattr(self.training, name), f"{neutral} when pretraining"
            _require(value == neutral, f"training.{name}", value, allowed)
        return self


# chapters/workshop_settings.md · A file, and what wins over it
def read_settings(kind: type[_Settings], path: str | Path, overrides: Sequence[str] = ()) -> _Settings:
    """Settings, such as a `RunConfig`, from a YAML file.

    `overrides` such as `["--seed", "3"]` win over it.

    Raises:
        ValueError: one sentence that names the file and the key, its value and what is allowed.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no config file {path}")
    words = [word.split("=")[0] for word in overrides]
    for word in ("--config", "--print_config"):  # jsonargparse has them
        if word in words:
            raise ValueError(f"{path}: {word} is no setting; one file says all")
    set_loader("settings", _yaml().load, exceptions=(YAMLError,))
    try:
        return auto_cli(
            kind,
            args=["--config", str(path), *overrides],
            as_positional=False,
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode="settings",
        )
    except (ArgumentError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {_one_sentence(error, kind)}") from None


def _save_settings(config: Any, path: str | Path) -> None:
    """Write settings as YAML, which `read_settings` reads back to an equal object."""
    Path(path).write_bytes(_settings_text(config))


def _settings_text(config: Any) -> bytes:
    text = BytesIO()
    _yaml().dump(asdict(config), text)
    return text.getvalue()


def _yaml() -> Any:
    """YAML 1.2, to read and to write: a key a line, in the order of the fields, in ASCII."""
    both: Any = YAML(typ="safe", pure=True)
    both.default_flow_style = both.sort_base_mapping_type_on_output = False
    both.allow_unicode = False
    return both


def _one_sentence(error: Exception, kind: type) -> str:
    """What jsonargparse found wrong with settings, in the words of this book."""
    text = " ".join(str(error).split()).split(" To suppress this check")[0]
    text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("typing.", "")
    wrong_type = r'Parser key "(.+?)": Expected an? (.+)\. Got value: (.*)'
    if found := re.fullmatch(wrong_type, text):
        allowed = re.sub(r"type Literal\[(.*)\]", r"one of \1", f"type {found[2]}")
        allowed = allowed if allowed.startswith("one of") else f"of {allowed}"
        return f"{found[1]} must be {allowed}, got {found[3]!r}"
    if "not accept" in text or text.startswith("unrecognized"):
        return f"{text}; allowed are {', '.join(_keys(kind))}"
    if "must be a mapping" in text or "Unable to load config" in text:
        parts = {key.partition(".")[0]: None for key in _keys(kind) if "." in key}
        return f"each of {', '.join(parts)} must map keys to values, as in 'training: {{epochs: 2}}', or be left out"
    if text.startswith("Unexpected config"):
        return "the file must map keys to values, as in 'seed: 0'"
    return text


def _keys(kind: Any, prefix: str = "") -> list[str]:
    """Every key of settings, written as on the command line: seed, data.name, …"""
    keys: list[str] = []
    for item in fields(kind):
        name = prefix + item.name
        keys += _keys(item.type, f"{name}.") if is_dataclass(item.type) else [name]
    return keys
