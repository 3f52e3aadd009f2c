# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""Masked-language-model pretraining: the encoder reads before it judges."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from minitransformer.config import PretrainConfig, TrainingConfig, load_pretrain_config, require, save_config
from minitransformer.data import EpochSampler, Examples, collate, epoch_batches, load_examples, load_imdb
from minitransformer.evaluate import Metrics
from minitransformer.model import TransformerForMaskedLM, load_initial
from minitransformer.runs import (
    checksum,
    one_at_a_time,
    open_run_folder,
    read_records,
    read_run_record,
    save_checkpoint,
    write_atomically,
    write_json,
    writing,
)
from minitransformer.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer, WordTokenizer, load_tokenizer
from minitransformer.train import (
    FUSED,
    StepResult,
    TrainingState,
    autocast_on,
    choose_device,
    fingerprint,
    furthest,
    make_scaler,
    restore,
    run_epochs,
    run_record,
    same_run,
    settings_of,
    settled,
)

__all__ = [
    "ChunkDataset",
    "ChunkSampler",
    "Corpus",
    "MaskedLMObjective",
    "MaskedLMTraining",
    "begin_pretraining",
    "build_corpus",
    "chunk_batches",
    "cut_points",
    "encode_all",
    "finish_pretraining",
    "load_corpus_texts",
    "make_corpus_loader",
    "mask_tokens",
    "prepare_pretraining",
    "pretrain",
]


# chapters/day09_sprint.md · Hide, and guess
def mask_tokens(
    input_ids: Int[Tensor, "B T"],
    attention_mask: Bool[Tensor, "B T"],
    vocab_size: int,
    rate: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Hide a share `rate` of the real tokens; returns what the model sees, and which tokens it has to name.

    Of the chosen tokens 80 % become [MASK], 10 % a random entry, 10 % stay (Devlin et al., 2019, section 3.1).
    Special tokens are never chosen; at least one other token is, if there is any.
    """
    special = len(SPECIAL_TOKENS)
    allowed = attention_mask & (input_ids >= special)
    size = max(1, round(rate * int(allowed.sum())))
    dice = torch.rand(input_ids.shape, generator=generator).masked_fill(~allowed, 2.0)
    chosen = (
        torch.zeros_like(allowed).flatten().index_fill_(0, dice.flatten().topk(size, largest=False)[1], True)
    )
    chosen = chosen.view_as(allowed) & allowed
    fate = torch.rand(input_ids.shape, generator=generator)
    others = torch.randint(special, vocab_size, input_ids.shape, generator=generator)
    seen = torch.where(chosen & (fate < 0.8), SPECIAL_TOKENS.index("[MASK]"), input_ids)
    return torch.where(chosen & (fate >= 0.9), others, seen), chosen


# chapters/day09_sprint.md · The corpus
@dataclass(frozen=True)
class Corpus:
    """N ids of R reviews in one long array on disk.

    Attributes:
        tokens: the ids, uint16, shape [N].
        spans: where each review begins and ends among them, shape [R, 2].
        labels: 0, 1, or -1 for unknown, shape [R].
    """

    tokens: np.ndarray
    spans: np.ndarray
    labels: np.ndarray
    source: str
    checksum: str

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, reviews: np.ndarray) -> "Corpus":
        """A corpus of some of the reviews, which shares the array of ids."""
        return replace(self, spans=self.spans[reviews], labels=self.labels[reviews])


# chapters/day09_sprint.md · The corpus
def load_corpus_texts(name: str) -> Examples:
    """The texts to read: all 100,000 reviews of "imdb", a quarter of them, or made-up reviews of the "toy" grammar."""
    splits = {"imdb": ("train", "test", "unsupervised"), "imdb_train": ("train",)}
    if name in splits:
        parts = [load_imdb(split) for split in splits[name]]
        texts, labels = [t for p in parts for t in p.texts], [y for p in parts for y in p.labels]
        return Examples(texts, labels, f"IMDB, {len(texts):,} reviews")
    reviews = load_examples("toy", "train")
    groups = [
        [t for t, y in zip(reviews.texts, reviews.labels, strict=True) if y == label] for label in (0, 1)
    ]
    texts = [" . ".join(group[i : i + 4]) for group in groups for i in range(0, len(group), 4)]
    labels = [label for label, group in enumerate(groups) for _ in range(0, len(group), 4)]
    return Examples(texts, labels, f"toy, {len(texts)} made-up reviews")


# chapters/day09_sprint.md · The corpus
def build_corpus(examples: Examples, tokenizer: WordTokenizer, folder: Path) -> Corpus:
    """Tokenize all texts once, into files of `folder` that later runs map into memory; done before, it is read back."""
    folder.mkdir(parents=True, exist_ok=True)
    words = hashlib.sha256("\n".join(tokenizer.vocabulary.tokens).encode()).hexdigest()
    wanted = {"source": examples.source, "texts_sha256": checksum(examples), "vocabulary_sha256": words}
    note = folder / "corpus.json"
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != wanted:
        note.unlink(missing_ok=True)
        ids = encode_all(tokenizer, examples.texts)
        ends = np.cumsum([len(row) for row in ids])
        with writing(folder / "tokens.npy"):
            np.save(folder / "tokens.npy", np.concatenate(ids))
            np.save(folder / "spans.npy", np.stack([ends - [len(row) for row in ids], ends], axis=1))
            np.save(folder / "labels.npy", np.array(examples.labels, dtype=np.int64))
        write_atomically(note, json.dumps(wanted).encode())  # last: it says that the others are complete
    tokens, spans, labels = (
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("tokens", "spans", "labels")
    )
    return Corpus(tokens, spans, labels, examples.source, wanted["texts_sha256"])


# chapters/day09_sprint.md · The corpus
def encode_all(tokenizer: WordTokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """The ids of every text without special tokens, and without a limit of length."""
    if len(tokenizer.vocabulary) > 2**16:
        raise ValueError(
            f"a corpus holds ids below 65,536, but the vocabulary has {len(tokenizer.vocabulary)}"
        )
    ids, unknown = tokenizer.vocabulary.ids, tokenizer.vocabulary.ids["[UNK]"]
    found = []
    for start in tqdm(range(0, len(texts), 1000), desc="tokenizing", unit="k texts", disable=None):
        for text in texts[start : start + 1000]:
            found.append(
                np.array([ids.get(token, unknown) for token in tokenizer.tokenize(text)], dtype=np.uint16)
            )
    return found


# chapters/day09_sprint.md · The corpus
def cut_points(spans: np.ndarray, length: int, seed: int, epoch: int) -> list[tuple[int, int, int]]:
    """The chunks of an epoch as (start, stop, review): at most `length` ids, none across two reviews.

    The first cut of a review moves from epoch to epoch, without adding a chunk; every id is in exactly one chunk.
    """
    random = np.random.default_rng((seed, epoch, 1))
    found = []
    for review, (start, stop) in enumerate(spans.tolist()):
        slack = -(stop - start) % length
        first = stop if stop - start <= length else start + length - int(random.integers(slack + 1))
        cuts = [start, *range(first, stop, length), stop]
        found += [(a, b, review) for a, b in pairwise(cuts) if a < b]
    return found


# chapters/day09_sprint.md · The corpus
def chunk_batches(
    corpus: Corpus, length: int, batch_size: int, seed: int, epoch: int
) -> list[list[tuple[int, int, int]]]:
    """All batches of an epoch as lists of chunks; chunks of similar length share a batch."""
    chunks = cut_points(corpus.spans, length, seed, epoch)
    lengths = np.array([stop - start for start, stop, _ in chunks])
    order = epoch_batches(lengths, batch_size, shuffle=True, group_by_length=True, seed=seed, epoch=epoch)
    return [[chunks[i] for i in batch] for batch in order]


# chapters/day09_sprint.md · The corpus
class ChunkSampler(EpochSampler):
    """The batches of chunks of one epoch after another; like every `EpochSampler`, a pure function of seed and epoch."""

    def __init__(self, corpus: Corpus, length: int, batch_size: int, seed: int = 0):
        if len(corpus.tokens) == 0 or length < 1 or batch_size < 1:
            raise ValueError(
                f"a corpus needs tokens, and length and batch_size must be at least 1, "
                f"got {len(corpus.tokens)}, {length} and {batch_size}"
            )
        chunks = int((-(-np.diff(corpus.spans) // length)).sum())
        self.size = -(-chunks // batch_size)
        self.batches: Any = partial(chunk_batches, corpus, length, batch_size, seed)
        self.epoch, self.first = 0, 0


# chapters/day09_sprint.md · The corpus
class ChunkDataset(Dataset):
    """Chunks (start, stop, review) of a corpus as (input_ids, label), between [CLS] and [SEP]."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def __getitem__(self, chunk: tuple[int, int, int]) -> tuple[list[int], int]:
        start, stop, review = chunk
        first, last = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
        return [first, *self.corpus.tokens[start:stop].tolist(), last], int(self.corpus.labels[review])


# chapters/day09_sprint.md · The corpus
def make_corpus_loader(corpus: Corpus, length: int, batch_size: int, seed: int = 0) -> DataLoader:
    """A loader of batches of chunks, as `minitransformer.data.collate` makes them, in an order that can be resumed."""
    sampler = ChunkSampler(corpus, length, batch_size, seed)
    return DataLoader(
        ChunkDataset(corpus), batch_sampler=sampler, collate_fn=collate, generator=torch.Generator()
    )


# chapters/day09_sprint.md · One loop, two objectives
@dataclass(frozen=True)
class MaskedLMObjective:
    """Name the hidden tokens; and, with a `label_weight` above zero, also the label of the review.

    `rate` is the share of tokens that is hidden. Which ones is a pure function of `seed` and the step.
    """

    rate: float = 0.15
    label_weight: float = 0.0
    seed: int = 0

    def losses(
        self, model: TransformerForMaskedLM, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, Tensor, int, int]:
        """Loss of the tokens, loss of the labels, and of the hidden tokens how many were named and how many there were."""
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        seen, chosen = mask_tokens(
            batch["input_ids"], batch["attention_mask"], model.config.vocab_size, self.rate, generator
        )
        mask, labels = batch["attention_mask"].to(device), batch["labels"].to(device)
        hidden = model.encoder(seen.to(device), mask)
        logits = model.name_tokens(hidden[chosen.to(device)])
        wanted, known = batch["input_ids"][chosen].to(device), labels >= 0
        token_loss = F.cross_entropy(logits, wanted, reduction="sum") / max(1, len(wanted))
        label_loss = token_loss.new_zeros(())
        if self.label_weight > 0 and known.any():
            label_loss = F.cross_entropy(model.classify(hidden, mask)[known], labels[known])
        return token_loss, label_loss, int((logits.argmax(-1) == wanted).sum()), len(wanted)


# chapters/day09_sprint.md · One loop, two objectives
class MaskedLMTraining(MaskedLMObjective):
    """`MaskedLMObjective` as the training loop wants it; a result counts hidden tokens where others count examples."""

    def update(self, state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig) -> StepResult:
        """One update; the reported loss is that of the tokens."""
        assert isinstance(state.model, TransformerForMaskedLM)
        state.optimizer.zero_grad()
        with autocast_on(next(state.model.parameters()).device, settings.autocast):
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
            loss, correct, total = loss + token_loss.item() * size, correct + right, total + size
        model.train(was_training)
        if total == 0:
            raise ValueError("there is nothing to evaluate: the loader yields no batch")
        return Metrics(total, correct / total, loss / total)


# chapters/day09_sprint.md · The settings of a reading, and the run
def prepare_pretraining(
    config: PretrainConfig, folder: Path
) -> tuple[PretrainConfig, WordTokenizer, Corpus, Corpus]:
    """Learn the pieces of words (or take those of `initial`), tokenize the corpus, and hold some reviews back.

    What an earlier call left in the folder is used again. Returns the config with the vocabulary's actual size, the
    tokenizer, the corpus to read, and the one to measure on.
    """
    examples = load_corpus_texts(config.corpus)
    size, longest = config.model.vocab_size, config.model.max_length
    tokenizer: WordTokenizer
    if config.initial is None:
        tokenizer = WordPieceTokenizer.train(examples.texts, size, longest)
    else:
        tokenizer = load_tokenizer(Path(config.initial, "tokenizer.json"))
        tokenizer.max_length = longest
    corpus = build_corpus(examples, tokenizer, folder)
    require(
        config.held_out < len(corpus),
        "held_out",
        config.held_out,
        f"below the {len(corpus)} reviews there are",
    )
    order = np.random.default_rng(config.seed).permutation(len(corpus))
    held_out, read = np.sort(order[: config.held_out]), np.sort(order[config.held_out :])
    config = replace(config, model=replace(config.model, vocab_size=len(tokenizer.vocabulary)))
    return config, tokenizer, corpus.part(read), corpus.part(held_out)


# chapters/day09_sprint.md · The settings of a reading, and the run
def begin_pretraining(config: PretrainConfig, device: torch.device) -> TrainingState:
    """A model with fresh or given weights, its optimizer and scaler: the state before the first step."""
    torch.manual_seed(config.seed)
    model, settings = TransformerForMaskedLM(config.model), config.training
    if config.initial is not None:
        load_initial(model, Path(config.initial, "model.safetensors"))
    model = model.to(device)
    if settings.compile:
        model.encoder.compile(dynamic=True)  # the objective calls the encoder, never the whole model
    optimizer = torch.optim.AdamW(
        model.parameters(),
        settings.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=device.type in FUSED,
    )
    return TrainingState(model, optimizer, make_scaler(device, settings.autocast))


# chapters/day09_sprint.md · The settings of a reading, and the run
@one_at_a_time
def pretrain(
    config: PretrainConfig, folder: str | Path, overwrite: bool = False, resume: bool = False
) -> Metrics:
    """Read a corpus with hidden words, from the config to a folder that holds encoder and tokenizer.

    `fit` starts from such a folder if `initial` names it. With `resume`, an interrupted run goes on.
    """
    device = choose_device(config.training.device)
    config = settled(config, device, Path(folder), resume)
    folder, settings = open_run_folder(folder, overwrite, resume), config.training
    config, tokenizer, corpus, held_out = prepare_pretraining(config, folder / "corpus")
    start = {} if config.initial is None else fingerprint(config.initial, "model.safetensors")
    both = {"checksum of the corpus": corpus.checksum}
    ours = settings_of(config) | both | {"initial": start.get("sha256")}
    if resume and (folder / "run.json").exists():
        began = read_run_record(folder).get("initial", {})
        theirs = settings_of(load_pretrain_config(folder / "config.yaml"))
        same_run(folder, theirs | both | {"initial": began.get("sha256")}, ours)
        print(f"the run in {folder} is finished")
        return Metrics(**read_records(folder, "epoch")[-1]["validation"])
    state = begin_pretraining(config, device)
    if resume and restore(folder, state, ours):
        print(f"going on after step {state.step}")
    with writing(folder / "tokenizer.json"):
        save_config(config, folder / "config.yaml")
        tokenizer.save(folder / "tokenizer.json")
    loader = make_corpus_loader(corpus, config.chunk_length, settings.batch_size, config.seed)
    measuring = make_corpus_loader(held_out, config.chunk_length, settings.batch_size, config.seed)
    size = config.model.vocab_size
    print(f"{config.name}: {corpus.source}, vocabulary {size}, {len(loader)} steps an epoch")
    print(f"computing in {settings.autocast} on {device}")

    def save() -> None:
        log = (folder / "metrics.jsonl").stat().st_size
        save_checkpoint(folder, state.step, {"identity": ours, "log_bytes": log, **state.state_dict()})

    objective = MaskedLMTraining(config.mask_rate, config.label_weight, config.seed)
    run_epochs(state, loader, measuring, settings, folder, save, objective)
    return finish_pretraining(folder, config, state, corpus)


# chapters/day09_sprint.md · The settings of a reading, and the run
def finish_pretraining(folder: Path, config: PretrainConfig, state: TrainingState, corpus: Corpus) -> Metrics:
    """Write the model and where it comes from."""
    assert isinstance(state.model, TransformerForMaskedLM)
    with writing(folder / "model.safetensors"):
        state.model.save_pretrained(folder)
    data = {corpus.source: {"reviews": len(corpus), "sha256": corpus.checksum}}
    kind, start = "read", {}
    if config.initial is not None:
        kind = furthest([kind, read_run_record(config.initial)["class"]])
        start = {"initial": fingerprint(config.initial, "model.safetensors")}
    record = run_record(config.name, kind, config.seed, data, state, config.training.autocast)
    write_json(folder / "run.json", record | start)
    return Metrics(**read_records(folder, "epoch")[-1]["validation"])
