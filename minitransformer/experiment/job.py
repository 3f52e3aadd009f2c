# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""A run whose data is loaded: what it minimises, and what must not change when it is resumed."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from minitransformer.data import EpochSampler, Examples, load_examples, make_loader
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.experiment.checkpoint import TrainingState
from minitransformer.experiment.folder import _origin, _write_json, _writing, checksum, read_run_record
from minitransformer.experiment.settings import PretrainConfig, RunConfig, TrainingConfig, read_settings
from minitransformer.model import _require
from minitransformer.pretrain import (
    Corpus,
    MaskedLMObjective,
    _load_corpus_texts,
    build_corpus,
    make_corpus_loader,
)
from minitransformer.tokenizer import Vocabulary, WordPieceTokenizer, WordTokenizer, load_tokenizer
from minitransformer.train import StepResult, _update, autocast_on, train_step

__all__ = ["Classification", "Job", "Objective", "Reading", "identity"]


# chapters/workshop_runs.md · A job
@runtime_checkable  # the tests check types while they run
class Objective(Protocol):
    """What a run minimises, and how it is judged."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """One update of the state's model from a batch; nobody has read its result yet."""

    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """How well a model does."""


class Classification:
    """The `Objective` of labelled texts."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """See `train_step`."""
        model, optimizer, limit = state.model, state.optimizer, settings.max_grad_norm
        how = (settings.micro_batches, settings.autocast, state.scaler, settings.r_drop)
        step = state.step + 1
        return train_step(model, batch, optimizer, limit, step, *how, wait=False)

    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """See `minitransformer.evaluate.evaluate`."""
        return evaluate(model, loader)


class Reading(MaskedLMObjective):
    """The `Objective` of a text with hidden words; its results count hidden tokens where others count examples."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """One update; the reported loss is that of the tokens."""
        model, optimizer, scaler = state.model, state.optimizer, state.scaler
        optimizer.zero_grad()
        with autocast_on(state.device, settings.autocast):
            tokens, labels, correct, size = self.losses(model, batch, state.step)  # type: ignore[arg-type]
        scaler.scale(tokens + self.label_weight * labels).backward()
        loss, limit = tokens.detach(), settings.max_grad_norm
        norm, finite = _update(model, optimizer, scaler, loss, limit)
        seen = int(batch["attention_mask"].sum())
        return StepResult(state.step + 1, loss, norm, correct, size, seen, ~finite)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """Share of hidden tokens that were named and mean loss for each, with the same tokens hidden every time."""
        was_training, loss, found = model.training, 0.0, np.zeros(2, dtype=int)
        model.eval()
        sampler = getattr(loader, "batch_sampler", None)
        if isinstance(sampler, EpochSampler):
            sampler.set_epoch(0)  # the same chunks every time
        for index, batch in enumerate(loader):
            tokens, _, right, size = self.losses(model, batch, -1 - index)  # type: ignore[arg-type]
            loss += tokens.item() * size
            found += (int(right), size)
        model.train(was_training)
        correct, total = found.tolist()
        if total == 0:
            raise ValueError("nothing to evaluate: no token is hidden in any batch")
        return Metrics(total, correct / total, loss / total)


@dataclass(frozen=True)
class Job:
    """A run whose data is loaded: all that `fit` needs besides a model.

    Attributes:
        config: the settings, with the size that the vocabulary has.
        data: for each split its source, number of texts and checksum.
        loader, measuring: the batches to train on, which can be resumed, and those to judge by.
    """

    config: Any
    tokenizer: WordTokenizer
    data: dict[str, dict[str, Any]]
    loader: DataLoader
    measuring: DataLoader
    objective: Objective


def _prepare(config: RunConfig | PretrainConfig, folder: Path) -> Job:
    """Load what the settings name, and make its loaders; a reading keeps its tokenized corpus in `folder`."""
    job = _reading(config, folder) if isinstance(config, PretrainConfig) else _labelled(config)
    model = replace(config.model, vocab_size=len(job.tokenizer.vocabulary))
    return replace(job, config=replace(config, model=model))


def _tokenizer_of(folder: str | Path, length: int) -> WordTokenizer:
    tokenizer = load_tokenizer(Path(folder, "tokenizer.json"))
    tokenizer.max_length = length
    return tokenizer


def _described(examples: Examples, **counts: int) -> dict[str, Any]:
    counts = counts or {"examples": len(examples)}
    return {"source": examples.source, **counts, "sha256": checksum(examples)}


def _labelled(config: RunConfig) -> Job:
    """Labelled texts, and a vocabulary of the training texts' words unless a tokenizer is given."""
    wanted, model, batch = config.data, config.model, config.training.batch_size
    train = load_examples(wanted.source("train"), "train")
    train = _sample(train, wanted.train_size, config.seed)
    validation = load_examples(wanted.source("validation"), "validation")
    if source := config.initial or wanted.tokenizer:
        tokenizer = _tokenizer_of(source, model.max_length)
    else:
        least, most = wanted.min_frequency, model.vocab_size
        words = Vocabulary.from_texts(train.texts, least, most)
        tokenizer = WordTokenizer(words, model.max_length)
    data = {"training": _described(train), "validation": _described(validation)}
    loader = make_loader(train, tokenizer, batch, True, config.seed, wanted.group_by_length)
    measuring = make_loader(validation, tokenizer, 256)
    return Job(config, tokenizer, data, loader, measuring, Classification())


def _sample(examples: Examples, size: int | None, seed: int) -> Examples:
    """`size` of the examples, drawn without replacement; all of them if `size` is None."""
    if size is None:
        return examples
    if size > len(examples):
        raise ValueError(
            f"data.train_size is {size}, but {examples.source} has only {len(examples)} examples"
        )
    dice = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(examples), generator=dice)[:size].tolist()
    texts = [examples.texts[i] for i in chosen]
    labels = [examples.labels[i] for i in chosen]
    return Examples(texts, labels, f"{size} of {examples.source}")


def _reading(config: PretrainConfig, folder: Path) -> Job:
    """A corpus, of which some reviews are held back to measure, and a tokenizer that learned its pieces there."""
    examples, length = _load_corpus_texts(config.corpus), config.model.max_length
    if config.initial is not None:
        tokenizer = _tokenizer_of(config.initial, length)
    else:
        size = config.model.vocab_size
        tokenizer = WordPieceTokenizer.train(examples.texts, size, length)
    corpus = _kept_corpus(examples, tokenizer, folder / "corpus")
    held_out = config.held_out
    allowed = f"below the {len(corpus)} reviews there are"
    _require(held_out < len(corpus), "held_out", held_out, allowed)
    order = np.random.default_rng(config.seed).permutation(len(corpus))
    how = (config.chunk_length, config.training.batch_size, config.seed)
    loader, measuring = (
        make_corpus_loader(corpus.part(np.sort(part)), *how) for part in (order[held_out:], order[:held_out])
    )
    objective = Reading(config.mask_rate, config.label_weight, config.seed)
    data = {"corpus": _described(examples, reviews=len(corpus) - held_out)}
    return Job(config, tokenizer, data, loader, measuring, objective)


def _kept_corpus(examples: Examples, tokenizer: WordTokenizer, folder: Path) -> Corpus:
    """`build_corpus`, once: its arrays lie in files of `folder`, which later calls map into memory."""
    words = hashlib.sha256("\n".join(tokenizer.vocabulary.tokens).encode()).hexdigest()
    wanted = {**_described(examples), "vocabulary_sha256": words}
    note, names = folder / "corpus.json", ("tokens", "spans", "labels")

    def read() -> Corpus:
        if json.loads(note.read_text(encoding="utf-8")) != wanted:
            raise ValueError(f"{note} belongs to another corpus")
        files = (folder / f"{name}.npy" for name in names)
        how: Any = {"mmap_mode": "r", "allow_pickle": False}
        tokens, spans, labels = (np.load(file, **how) for file in files)
        return Corpus(tokens, spans, labels, examples.source)

    try:
        return read()
    except (OSError, ValueError, EOFError):  # not there, of other texts, or damaged
        folder.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
    corpus = build_corpus(examples, tokenizer)
    for name in names:
        with _writing(folder / f"{name}.npy"):
            np.save(folder / f"{name}.npy", getattr(corpus, name))
    _write_json(note, wanted)
    return read()


def _flat(values: dict[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested values under one name each: {"train": {"loss": 1}} gives {"train.loss": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        deep = isinstance(value, dict)
        inner = f"{prefix}{name}{separator}"
        found |= _flat(value, separator, inner) if deep else {prefix + name: value}
    return found


_MAY_CHANGE = (
    *("training.device", "training.checkpoint_every", "training.tensorboard"),
    *("data.tokenizer", "data.train", "data.validation", "data.test"),
)


def identity(job: Job) -> dict[str, Any]:
    """What must not change when a run is resumed: settings, data, and what it starts from, wherever that lies."""
    return _identity(job.config, job.data, _origin(job.config)[1])


def _finished_identity(folder: Path, kind: type) -> dict[str, Any]:
    """The `identity` of a finished run, whose settings are of the `kind` RunConfig or PretrainConfig."""
    record = read_run_record(folder)
    config: Any = read_settings(kind, folder / "config.yaml")
    return _identity(config, record.get("data", {}), record.get("initial", {}))


def _identity(config: Any, data: dict[str, Any], start: dict[str, str]) -> dict[str, Any]:
    settings = _flat(asdict(config))
    kept = {name: settings[name] for name in settings if name not in _MAY_CHANGE}
    reading = isinstance(config, PretrainConfig)
    splits = ("corpus",) if reading else ("training", "validation")
    sums = {
        f"checksum of the {split} data": entry["sha256"]
        for split, entry in zip(splits, data.values(), strict=False)
    }
    return kept | sums | {"initial": start.get("sha256")}
