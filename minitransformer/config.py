# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day07_experiments.md, chapters/day09_sprint.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The settings of a run as dataclasses, read from YAML and the command line."""

import math
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
import yaml
from jsonargparse import auto_cli, set_loader

from minitransformer.model import ModelConfig
from minitransformer.tokenizer import SPECIAL_TOKENS

__all__ = [
    "DEVICES",
    "DataConfig",
    "PretrainConfig",
    "RecipeConfig",
    "RunConfig",
    "SearchConfig",
    "SettingsLoader",
    "TrainingConfig",
    "check_reading",
    "check_run",
    "check_training",
    "config_keys",
    "core_schema",
    "examples_of",
    "is_device",
    "load_config",
    "load_pretrain_config",
    "load_recipe",
    "load_search",
    "one_sentence",
    "read_settings",
    "require",
    "save_config",
    "variant_config",
]


# chapters/day05_training.md · Settings: dataclasses and YAML
def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a setting with one sentence that names it, what it was and what it may be."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


# chapters/day09_sprint.md · Weights and tokenizer from a folder
@dataclass(frozen=True)
class DataConfig:
    """Which examples a run sees.

    Attributes:
        name: "sst2", or "toy" for the generated reviews; "files" for those that `train` and `validation` name.
        min_frequency: a word enters the vocabulary if the training texts hold it this often.
        train_size: so many training examples, drawn at random; None takes them all.
        group_by_length: whether texts of similar length share a batch, which saves padding.
        tokenizer: a folder with a `tokenizer.json` to be used; None makes a vocabulary of the training texts' words.
        sentences: how often an epoch shows a whole sentence, a training text that is part of no other one.
        extra: a folder of sentences that other models have labelled, which the run learns from as well.
        confidence: a sentence of `extra` is taken if its label has at least this probability.
        train, validation, test: files of labelled texts (see `read_examples`), from the current folder; `test` may be None.
    """

    name: Literal["sst2", "toy", "files"] = "files"
    min_frequency: int = 1
    train_size: int | None = None
    group_by_length: bool = False
    tokenizer: str | None = None
    sentences: int = 1
    extra: str | None = None
    confidence: float = 0.9
    train: str | None = None
    validation: str | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        _check_files(self)
        require(self.min_frequency >= 1, "data.min_frequency", self.min_frequency, "at least 1")
        size = self.train_size
        require(size is None or size >= 1, "data.train_size", size, "at least 1, or null for all")
        require(self.sentences >= 1, "data.sentences", self.sentences, "at least 1")
        require(0.5 <= self.confidence < 1, "data.confidence", self.confidence, "a share in [0.5, 1)")


# chapters/day09_sprint.md · Weights and tokenizer from a folder
@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found: AdamW, a schedule for its rate, gradients clipped by their norm.

    A batch is worked through in `micro_batches` parts. `warmup` is the share of all updates over which the rate
    rises from zero. With a `layer_decay` below 1 each layer gets that share of the rate of the layer above it. With
    an `ema` above 0 the run ends with an exponential moving average of its weights, which keeps that share of the old
    average in every step. With an `r_drop` above 0 each batch passes twice, and the loss grows by so many times
    the `disagreement` of the two answers. With `compile` PyTorch's compiler translates the encoder at the first batch. After
    `max_skipped` updates in a row without a finite loss and gradient the run stops. Every `log_every`-th update gets
    a record; every `checkpoint_every`-th, and the last of an epoch, a checkpoint.
    """

    epochs: int = 1
    batch_size: int = 64
    micro_batches: int = 1
    learning_rate: float = 5e-4
    schedule: Literal["constant", "linear"] = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    device: str = "auto"
    autocast: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    max_skipped: int = 10
    log_every: int = 10
    checkpoint_every: int = 500
    tensorboard: bool = False
    layer_decay: float = 1.0
    ema: float = 0.0
    compile: bool = False
    r_drop: float = 0.0

    def __post_init__(self) -> None:
        check_training(self)


# chapters/day09_sprint.md · Weights and tokenizer from a folder
@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run: on the same machine and versions, the same values give the same run.

    `initial` names the folder of a pretrained encoder, whose weights and tokenizer the run starts from.
    `model.vocab_size` is an upper bound; the config that a run saves holds the size that its words needed.
    """

    name: str
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    initial: str | None = None

    def __post_init__(self) -> None:
        check_run(self.name, self.seed, self.model)
        twice = getattr(self.training, "r_drop", 0.0)  # Day 6's own settings have no such field
        alike = twice > 0 and self.model.dropout == 0  # without dropout, two passes are one
        require(not alike, "training.r_drop", twice, "0 where model.dropout is 0")
        both = self.initial is not None and self.data.tokenizer is not None
        require(
            not both,
            "data.tokenizer",
            self.data.tokenizer,
            "null where initial is given, which brings its own",
        )


# chapters/day06_engineering.md · `off` is False
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's settings from a YAML file; `overrides` such as `["--training.epochs", "3"]` win over it.

    Raises:
        ValueError: one sentence that names the file and the key, its value and what is allowed.
    """
    return read_settings(RunConfig, path, overrides)


# chapters/day06_engineering.md · `off` is False
def one_sentence(error: Exception, kind: type = RunConfig) -> str:
    """What jsonargparse found wrong with a config, in the words of this book."""
    text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(error).split())).replace("typing.", "")
    if found := re.fullmatch(r'Parser key "(.+?)": Expected an? (.+)\. Got value: (.*)', text):
        allowed = re.sub(r"type Literal\[(.*)\]", r"one of \1", f"type {found[2]}")
        allowed = allowed if allowed.startswith("one of") else f"of {allowed}"
        return f"{found[1]} must be {allowed}, got {found[3]!r}"
    if "not accept" in text or text.startswith("unrecognized"):
        return f"{text}; allowed are {', '.join(config_keys(kind))}"
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


# chapters/day09_sprint.md · The settings of a reading, and the run
@dataclass(frozen=True)
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

    name: str
    corpus: Literal["imdb", "imdb_train", "toy"]
    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    chunk_length: int = 64
    held_out: int = 500
    mask_rate: float = 0.2
    label_weight: float = 0.0
    seed: int = 0
    initial: str | None = None

    def __post_init__(self) -> None:
        check_run(self.name, self.seed, self.model)
        check_reading(self)


# chapters/day09_sprint.md · The settings of a reading, and the run
def save_config(config: RunConfig | PretrainConfig, path: str | Path) -> None:
    """Write a run's settings as YAML, which `load_config` or `load_pretrain_config` reads back to an equal object."""
    Path(path).write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")


# chapters/day06_engineering.md · Settings for today's switches
DEVICES = "auto, cpu or an accelerator that PyTorch knows, such as cuda, cuda:1, mps or xpu"


# chapters/day06_engineering.md · Settings for today's switches
def is_device(name: str) -> bool:
    """Whether `name` is "auto" or what PyTorch calls some device, wherever that may be."""
    try:
        return name == "auto" or torch.device(name) is not None
    except (RuntimeError, TypeError):
        return False


# chapters/day06_engineering.md · `off` is False
def core_schema() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """How YAML 1.2 recognises plain values, by their first character: `off` and `no` are words, 1e-3 is a number."""
    rules: dict[str, tuple[str, Sequence[str]]] = {
        "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
        "null": ("null|Null|NULL|~|", ["n", "N", "~", ""]),
        "int": (r"[-+]?(0|[1-9]\d*)", "-+0123456789"),
        "float": (r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    }
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, (pattern, first) in rules.items():
        for character in first:
            found.setdefault(character, []).append(
                (f"tag:yaml.org,2002:{name}", re.compile(f"(?:{pattern})$"))
            )
    return found


# chapters/day06_engineering.md · `off` is False
class SettingsLoader(yaml.SafeLoader):
    """YAML 1.2 as settings need it; a key that stands twice is an error, where PyYAML lets the last one win."""

    yaml_implicit_resolvers = core_schema()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As PyYAML does, but without two equal keys."""
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice")
        return super().construct_mapping(node, deep)


# chapters/day06_engineering.md · `off` is False
_Settings = TypeVar("_Settings")


# chapters/day06_engineering.md · `off` is False
def read_settings(kind: type[_Settings], path: str | Path, overrides: Sequence[str] = ()) -> _Settings:
    """A dataclass of settings from a YAML file and from `overrides` such as `["--seed", "3"]`, which win over it.

    Raises:
        ValueError: one sentence that names the file and the key, its value and what is allowed.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no config file {path}")
    set_loader("settings", partial(yaml.load, Loader=SettingsLoader), exceptions=(yaml.YAMLError,))
    arguments = ["--config", str(path), *overrides]
    try:
        return auto_cli(
            kind,
            args=arguments,
            as_positional=False,
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode="settings",
        )
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_sentence(error, kind)}") from None


# chapters/day07_experiments.md · The plan is a file
@dataclass(frozen=True)
class SearchConfig:
    """A search: each variant of `base` is trained once with each seed.

    Attributes:
        base: the config file of the unchanged run, beside the search's own file.
        seeds: which seeds every variant gets.
        variants: a name for each, and the settings that it changes, such as {"training.learning_rate": 1e-3}.
    """

    name: str
    base: str
    seeds: list[int]
    variants: dict[str, dict[str, str | int | float | bool]]

    def __post_init__(self) -> None:
        require(
            len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds),
            "seeds",
            self.seeds,
            "different numbers, one at least",
        )
        require(len(self.variants) > 0, "variants", self.variants, "at least one name with its settings")


# chapters/day07_experiments.md · The plan is a file
def load_search(path: str | Path) -> SearchConfig:
    """Read a search from a YAML file, and check every variant's settings before anything is trained.

    Raises:
        ValueError: one sentence that names the file, the variant and the key that is wrong.
    """
    plan = read_settings(SearchConfig, path)
    plan = replace(plan, base=str(Path(path).parent / plan.base))
    for name in plan.variants:
        variant_config(plan, name, plan.seeds[0])
    return plan


# chapters/day07_experiments.md · The plan is a file
def variant_config(plan: SearchConfig, variant: str, seed: int) -> RunConfig:
    """The settings of one run of a search: the base, with the variant's changes, under the variant's name."""
    changes = [f"--{key}={value}" for key, value in plan.variants[variant].items()]
    try:
        return load_config(plan.base, ["--name", variant, "--seed", str(seed), *changes])
    except ValueError as error:
        raise ValueError(f"variant {variant!r}: {error}") from None


# chapters/day09_sprint.md · The settings of a reading, and the run
def check_reading(config: PretrainConfig) -> None:
    """What the settings of a pretraining run must fulfil beyond `check_run`."""
    longest = config.model.max_length - 2
    in_chunk = f"in 1 … {longest} (model.max_length less two for [CLS] and [SEP])"
    weight, vocab_size = config.label_weight, config.model.vocab_size
    unused = {"micro_batches": 1, "r_drop": 0, "ema": 0, "layer_decay": 1}  # and their neutral values
    known = ("imdb", "imdb_train", "toy")
    require(config.corpus in known, "corpus", config.corpus, f"one of {', '.join(known)}")
    require(1 <= config.chunk_length <= longest, "chunk_length", config.chunk_length, in_chunk)
    require(config.held_out >= 1, "held_out", config.held_out, "at least 1")
    require(0 < config.mask_rate < 1, "mask_rate", config.mask_rate, "a share in (0, 1)")
    require(0 <= weight < math.inf, "label_weight", weight, "finite and not negative")
    for name, neutral in unused.items():
        value = getattr(config.training, name)
        require(value == neutral, f"training.{name}", value, f"{neutral} when pretraining")
    require(
        vocab_size <= 2**16, "model.vocab_size", vocab_size, "at most 65536, the ids that 16 bits can hold"
    )


# chapters/day09_sprint.md · The settings of a reading, and the run
def check_run(name: str, seed: int, model: ModelConfig) -> None:
    """What every run's settings must fulfil."""
    require(re.fullmatch(r"[\w-][\w.-]*", name) is not None, "name", name, "a plain folder name")
    require(0 <= seed < 2**63, "seed", seed, "in 0 … 2^63 - 1")
    require(model.padding_id == 0, "model.padding_id", model.padding_id, "0, the id of [PAD]")
    require(model.num_labels == 2, "model.num_labels", model.num_labels, "2 (negative, positive)")
    special, shortest = len(SPECIAL_TOKENS), 3  # [CLS], one word, [SEP]
    require(model.vocab_size >= special, "model.vocab_size", model.vocab_size, f"at least {special}")
    require(model.max_length >= shortest, "model.max_length", model.max_length, f"at least {shortest}")


# chapters/day09_sprint.md · The settings of a reading, and the run
def load_pretrain_config(path: str | Path, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read the settings of a pretraining run; see `load_config`."""
    return read_settings(PretrainConfig, path, overrides)


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def _check_files(data: DataConfig) -> None:
    """Examples come from a data set with a name, or from files, but not from both."""
    require(data.name in ("sst2", "toy", "files"), "data.name", data.name, "'sst2', 'toy' or 'files'")
    for split in ("train", "validation", "test"):
        path = getattr(data, split)
        if data.name != "files":
            require(path is None, f"data.{split}", path, f"null where data.name is {data.name!r}")
        elif split != "test" or path is not None:
            require(bool(path), f"data.{split}", path, "a file, unless data.name is 'sst2' or 'toy'")


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def examples_of(data: DataConfig, split: str) -> str:
    """The first argument of `load_examples`: the name of the data set, or the file of the split."""
    if data.name != "files":
        return data.name
    path = {"train": data.train, "validation": data.validation, "test": data.test}.get(split)
    if path is None:
        raise ValueError(f"the run's config names no file for the split {split!r}: add data.{split}")
    return path


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def check_training(settings: TrainingConfig) -> None:
    """What the settings of every training must fulfil."""
    for name in ("epochs", "batch_size", "micro_batches", "max_skipped", "log_every", "checkpoint_every"):
        require(getattr(settings, name) >= 1, f"training.{name}", getattr(settings, name), "at least 1")
    rate, decay, norm = settings.learning_rate, settings.weight_decay, settings.max_grad_norm
    require(0 <= settings.r_drop < math.inf, "training.r_drop", settings.r_drop, "finite and not negative")
    require(0 < rate < math.inf, "training.learning_rate", rate, "positive and finite")
    require(0 <= decay < math.inf, "training.weight_decay", decay, "finite and not negative")
    require(norm > 0, "training.max_grad_norm", norm, "positive (.inf never clips)")
    for name in ("warmup", "ema"):
        require(
            0 <= getattr(settings, name) < 1, f"training.{name}", getattr(settings, name), "a share in [0, 1)"
        )
    share, size, parts = settings.layer_decay, settings.batch_size, settings.micro_batches
    require(0 < share <= 1, "training.layer_decay", share, "a share in (0, 1]")
    require(parts <= size, "training.micro_batches", parts, f"at most training.batch_size={size}")
    words = {"schedule": "constant, linear", "autocast": "auto, fp32, bf16, fp16"}
    for name, allowed in words.items():
        value = getattr(settings, name)
        require(value in allowed.split(", "), f"training.{name}", value, f"one of {allowed}")
    require(is_device(settings.device), "training.device", settings.device, DEVICES)


# chapters/day11_deeper.md · The whole recipe as one command
@dataclass(frozen=True)
class RecipeConfig:
    """A recipe from raw text to the report: an encoder that has read or was taken over, and runs that start from it.

    Attributes:
        train: the config file of the runs on labelled texts; it stands beside the recipe's own file, like `pretrain`.
        seeds: which seeds the runs get.
        pretrain: the config file of a reading.
        convert: the folder or the name on the hub of a BERT, in place of a reading; with both, the BERT reads on.
        vocab_size: how many of that BERT's entries are kept; None keeps all.
    """

    name: str
    train: str
    seeds: list[int]
    pretrain: str | None = None
    convert: str | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        different = len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds)
        require(different, "seeds", self.seeds, "different numbers, one at least")
        some = self.pretrain is not None or self.convert is not None
        require(some, "pretrain", self.pretrain, "given if convert is not")
        least = len(SPECIAL_TOKENS) + 1
        enough = self.vocab_size is None or self.vocab_size >= least
        require(enough, "vocab_size", self.vocab_size, f"at least {least}, or null for all")


# chapters/day11_deeper.md · The whole recipe as one command
def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RecipeConfig:
    """Read a recipe from a YAML file, and check the settings of all its stages before any work is done.

    Raises:
        ValueError: one sentence that names the file, the key, its value and what is allowed.
    """
    plan, here = read_settings(RecipeConfig, path, overrides), Path(path).parent
    plan = replace(plan, train=str(here / plan.train))
    load_config(plan.train, ["--seed", str(plan.seeds[0])])
    if plan.pretrain is not None:
        plan = replace(plan, pretrain=str(here / plan.pretrain))
        load_pretrain_config(str(plan.pretrain))
    return plan
