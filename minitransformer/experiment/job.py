# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""A run whose data is loaded: what it minimises, and what must not change when it is resumed."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from minitransformer.data import EpochSampler, Examples, load_examples, make_loader
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.experiment.checkpoint import TrainingState
from minitransformer.experiment.folder import checksum, origin, write_atomically, writing
from minitransformer.experiment.settings import PretrainConfig, RunConfig, TrainingConfig
from minitransformer.model import TransformerForMaskedLM, require
from minitransformer.pretrain import (
    Corpus,
    MaskedLMObjective,
    build_corpus,
    load_corpus_texts,
    make_corpus_loader,
)
from minitransformer.tokenizer import Vocabulary, WordPieceTokenizer, WordTokenizer, load_tokenizer
from minitransformer.train import StepResult, autocast_on, train_step

__all__ = [
    "Classification", "Job", "Objective", "Reading", "flat", "identity", "kept_corpus", "prepare",
    "sample",
]  # fmt: skip


# chapters/workshop_runs.md · A run whose data is loaded: what it minimises, and what must not change when it is resumed.
class Objective(Protocol):
    """What a run minimises, and how it is judged."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """One update of the state's model from a batch."""

    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """How well a model does."""


class Classification:
    """The `Objective` of labelled texts."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """See `train_step`."""
        return train_step(
            state.model,
            batch,
            state.optimizer,
            settings.max_grad_norm,
            state.step + 1,
            settings.micro_batches,
            settings.autocast,
            state.scaler,
            settings.r_drop,
        )

    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """See `minitransformer.evaluate.evaluate`."""
        return evaluate(model, loader)


class Reading(MaskedLMObjective):
    """The `Objective` of a text with hidden words; its results count hidden tokens where others count examples."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """One update; the reported loss is that of the tokens."""
        assert isinstance(state.model, TransformerForMaskedLM)
        state.optimizer.zero_grad()
        with autocast_on(state.device, settings.autocast):
            token_loss, label_loss, correct, size = self.losses(state.model, batch, state.step)
        state.scaler.scale(token_loss + self.label_weight * label_loss).backward()
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.max_grad_norm).item()
        finite = math.isfinite(norm) and math.isfinite(token_loss.item())
        if finite:
            state.scaler.step(state.optimizer)
        state.scaler.update()
        tokens = int(batch["attention_mask"].sum())
        return StepResult(state.step + 1, token_loss.item(), norm, correct, size, tokens, not finite)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """Share of hidden tokens that were named and mean loss for each, with the same tokens hidden every time."""
        assert isinstance(model, TransformerForMaskedLM)
        was_training, loss, correct, total = model.training, 0.0, 0, 0
        model.eval()
        if isinstance(loader, DataLoader) and isinstance(loader.batch_sampler, EpochSampler):
            loader.batch_sampler.set_epoch(0)  # the same chunks every time
        for index, batch in enumerate(loader):
            token_loss, _, right, size = self.losses(model, batch, -1 - index)
            loss, correct, total = (loss + token_loss.item() * size, correct + right, total + size)
        model.train(was_training)
        if total == 0:
            raise ValueError("there is nothing to evaluate: no token is hidden in any batch")
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


def prepare(config: RunConfig | PretrainConfig, folder: Path) -> Job:
    """Load what the settings name, and make its loaders; a reading keeps its tokenized corpus in `folder`."""
    return _labelled(config) if isinstance(config, RunConfig) else _reading(config, folder)


def _with_vocabulary(config: Any, tokenizer: WordTokenizer) -> Any:
    return replace(config, model=replace(config.model, vocab_size=len(tokenizer.vocabulary)))


def _described(examples: Examples) -> dict[str, Any]:
    return {"source": examples.source, "examples": len(examples), "sha256": checksum(examples)}


def _labelled(config: RunConfig) -> Job:
    """Labelled texts, and a vocabulary of the training texts' words unless a tokenizer is given."""
    train = sample(load_examples(config.data.source("train"), "train"), config.data.train_size, config.seed)
    validation = load_examples(config.data.source("validation"), "validation")
    source, length = config.initial or config.data.tokenizer, config.model.max_length
    if source is not None:
        tokenizer = load_tokenizer(Path(source, "tokenizer.json"))
        tokenizer.max_length = length
    else:
        words = Vocabulary.from_texts(train.texts, config.data.min_frequency, config.model.vocab_size)
        tokenizer = WordTokenizer(words, max_length=length)
    config, settings = _with_vocabulary(config, tokenizer), config.training
    data = {"training": _described(train), "validation": _described(validation)}
    grouped = config.data.group_by_length
    loader = make_loader(train, tokenizer, settings.batch_size, True, config.seed, grouped)
    return Job(config, tokenizer, data, loader, make_loader(validation, tokenizer, 256), Classification())


def sample(examples: Examples, size: int | None, seed: int) -> Examples:
    """`size` of the examples, drawn without replacement; all of them if `size` is None."""
    if size is None:
        return examples
    if size > len(examples):
        raise ValueError(
            f"data.train_size is {size}, but {examples.source} has only {len(examples)} examples"
        )
    chosen = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:size].tolist()
    texts, labels = ([examples.texts[i] for i in chosen], [examples.labels[i] for i in chosen])
    return Examples(texts, labels, f"{size} of {examples.source}")


def _reading(config: PretrainConfig, folder: Path) -> Job:
    """A corpus, of which some reviews are held back to measure, and a tokenizer that learned its pieces there."""
    examples, longest = load_corpus_texts(config.corpus), config.model.max_length
    tokenizer: WordTokenizer
    if config.initial is None:
        tokenizer = WordPieceTokenizer.train(examples.texts, config.model.vocab_size, longest)
    else:
        tokenizer = load_tokenizer(Path(config.initial, "tokenizer.json"))
        tokenizer.max_length = longest
    corpus = kept_corpus(examples, tokenizer, folder / "corpus")
    allowed = f"below the {len(corpus)} reviews there are"
    require(config.held_out < len(corpus), "held_out", config.held_out, allowed)
    order = np.random.default_rng(config.seed).permutation(len(corpus))
    held_out, read = (np.sort(order[: config.held_out]), np.sort(order[config.held_out :]))
    config, settings = _with_vocabulary(config, tokenizer), config.training
    loader, measuring = (
        make_corpus_loader(corpus.part(part), config.chunk_length, settings.batch_size, config.seed)
        for part in (read, held_out)
    )
    data = {"corpus": {"source": corpus.source, "reviews": len(read), "sha256": checksum(examples)}}
    objective = Reading(config.mask_rate, config.label_weight, config.seed)
    return Job(config, tokenizer, data, loader, measuring, objective)


def kept_corpus(examples: Examples, tokenizer: WordTokenizer, folder: Path) -> Corpus:
    """`build_corpus`, once: its arrays lie in files of `folder`, which later calls map into memory."""
    folder.mkdir(parents=True, exist_ok=True)
    words = hashlib.sha256("\n".join(tokenizer.vocabulary.tokens).encode()).hexdigest()
    wanted = {"source": examples.source, "texts_sha256": checksum(examples), "vocabulary_sha256": words}
    note, names = folder / "corpus.json", ("tokens", "spans", "labels")
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != wanted:
        note.unlink(missing_ok=True)
        corpus = build_corpus(examples, tokenizer)
        for name in names:
            with writing(folder / f"{name}.npy"):
                np.save(folder / f"{name}.npy", getattr(corpus, name))
        write_atomically(note, json.dumps(wanted).encode())  # last: it says that the others are complete
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names]
    return Corpus(*arrays, examples.source)


def flat(values: dict[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested values under one name each: {"train": {"loss": 1}} gives {"train.loss": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        deep = isinstance(value, dict)
        found |= flat(value, separator, f"{prefix}{name}{separator}") if deep else {prefix + name: value}
    return found


def identity(job: Job) -> dict[str, Any]:
    """What must not change when a run is resumed: settings, data, and what it starts from, wherever that lies."""
    places = [f"training.{name}" for name in ("device", "checkpoint_every", "tensorboard")]
    places += [f"data.{name}" for name in ("tokenizer", "train", "validation", "test")]
    settings = {name: value for name, value in flat(asdict(job.config)).items() if name not in places}
    checksums = {f"checksum of the {split} data": entry["sha256"] for split, entry in job.data.items()}
    return settings | checksums | {"initial": origin(job.config)[1].get("sha256")}
