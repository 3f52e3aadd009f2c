# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""Masked-language-model pretraining: the encoder reads before it judges."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from minitransformer.data import EpochSampler, Examples, collate, epoch_batches, load_examples, load_imdb
from minitransformer.model import TransformerForMaskedLM
from minitransformer.tokenizer import SPECIAL_TOKENS, WordTokenizer
from minitransformer.train import _to_device

__all__ = ["Corpus", "MaskedLMObjective", "build_corpus", "make_corpus_loader", "mask_tokens"]


# chapters/day09_sprint.md · Hide, and guess
def mask_tokens(
    input_ids: Int[Tensor, "B T"],
    attention_mask: Bool[Tensor, "B T"],
    vocab_size: int,
    rate: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Hide a share `rate` of the real tokens; returns what is seen and what was chosen.

    Of these 80 % become [MASK], 10 % ordinary entries, 10 % stay (Devlin et al., 2019).
    Special tokens are never chosen; at least one other token is, if there is any.
    """
    special = len(SPECIAL_TOKENS)
    allowed = attention_mask & (input_ids >= special)
    size = max(1, round(rate * int(allowed.sum())))
    dice = torch.rand(input_ids.shape, generator=generator).masked_fill(~allowed, 2.0)
    winners = dice.flatten().topk(size, largest=False)[1]
    chosen = torch.zeros_like(allowed).flatten().index_fill_(0, winners, True)
    chosen = chosen.view_as(allowed) & allowed
    fate = torch.rand(input_ids.shape, generator=generator)
    others = torch.randint(special, vocab_size, input_ids.shape, generator=generator)
    seen = torch.where(chosen & (fate < 0.8), SPECIAL_TOKENS.index("[MASK]"), input_ids)
    return torch.where(chosen & (fate >= 0.9), others, seen), chosen


# chapters/day09_sprint.md · The corpus
@dataclass(frozen=True)
class Corpus:
    """N ids of R reviews in one long array.

    Attributes:
        tokens: the ids, uint16, shape [N].
        spans: where each review begins and ends among them, shape [R, 2].
        labels: 0, 1, or -1 for unknown, shape [R].
    """

    tokens: np.ndarray
    spans: np.ndarray
    labels: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, reviews: np.ndarray) -> "Corpus":
        """A corpus of some of the reviews, which shares the array of ids."""
        return replace(self, spans=self.spans[reviews], labels=self.labels[reviews])


def _load_corpus_texts(name: str) -> Examples:
    """The texts to read: all 100,000 reviews of "imdb", a quarter of them, or made-up reviews of the "toy" grammar."""
    splits = {"imdb": ("train", "test", "unsupervised"), "imdb_train": ("train",)}
    if name in splits:
        parts = [load_imdb(split) for split in splits[name]]
        texts, labels = ([t for p in parts for t in p.texts], [y for p in parts for y in p.labels])
        return Examples(texts, labels, f"IMDB, {len(texts):,} reviews")
    reviews = load_examples("toy", "train")
    groups = [
        [t for t, y in zip(reviews.texts, reviews.labels, strict=True) if y == label] for label in (0, 1)
    ]
    texts = [" . ".join(group[i : i + 4]) for group in groups for i in range(0, len(group), 4)]
    labels = [label for label, group in enumerate(groups) for _ in range(0, len(group), 4)]
    return Examples(texts, labels, f"toy, {len(texts)} made-up reviews")


def build_corpus(examples: Examples, tokenizer: WordTokenizer) -> Corpus:
    """Tokenize all texts, one after the other, into one long array."""
    ids = _encode_all(tokenizer, examples.texts)
    ends = np.cumsum([len(row) for row in ids])
    starts = ends - [len(row) for row in ids]
    labels = np.array(examples.labels, dtype=np.int64)
    return Corpus(np.concatenate(ids), np.stack([starts, ends], 1), labels, examples.source)


def _encode_all(tokenizer: WordTokenizer, texts: Sequence[str]) -> list[np.ndarray]:
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


def _cut_points(spans: np.ndarray, length: int, seed: int, epoch: int) -> np.ndarray:
    """The chunks of an epoch as rows (start, stop, review): at most `length` ids each.

    The first cut moves from epoch to epoch; every id is in exactly one chunk.
    """
    start, stop = spans.T
    size = stop - start
    moved, long = np.zeros_like(size), size > length
    random = np.random.default_rng((seed, epoch, 1))
    moved[long] = random.integers(-size[long] % length + 1)
    cuts = [np.arange(*span, length) for span in zip(start - moved, stop, strict=True)]
    review = np.repeat(np.arange(len(spans)), [len(cut) for cut in cuts])
    cut = np.concatenate(cuts)
    first, last = np.maximum(start[review], cut), np.minimum(stop[review], cut + length)
    return np.stack([first, last, review], 1)


def _chunk_batches(corpus: Corpus, length: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All batches of an epoch, each with its chunks as rows; chunks of similar length share a batch."""
    chunks = _cut_points(corpus.spans, length, seed, epoch)
    lengths = chunks[:, 1] - chunks[:, 0]
    order = epoch_batches(lengths, batch_size, shuffle=True, group_by_length=True, seed=seed, epoch=epoch)
    return [chunks[batch] for batch in order]


class _ChunkSampler(EpochSampler):
    """The batches of chunks of one epoch after another; like every `EpochSampler`, a pure function of seed and epoch."""

    def __init__(self, corpus: Corpus, length: int, batch_size: int, seed: int = 0):
        if len(corpus.tokens) == 0 or length < 1 or batch_size < 1:
            raise ValueError(
                f"a corpus needs tokens, and length and batch_size must be at least 1, "
                f"got {len(corpus.tokens)}, {length} and {batch_size}"
            )
        chunks = int((-(-np.diff(corpus.spans) // length)).sum())
        self.size = -(-chunks // batch_size)
        self.batches: Any = partial(_chunk_batches, corpus, length, batch_size, seed)
        self.epoch, self.first = 0, 0


class _ChunkDataset(Dataset):
    """Chunks (start, stop, review) of a corpus as (input_ids, label), between [CLS] and [SEP]."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def __getitem__(self, chunk: np.ndarray) -> tuple[Tensor, int]:
        start, stop, review = chunk
        first, last = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
        ids = np.concatenate([[first], self.corpus.tokens[start:stop], [last]])
        return torch.from_numpy(ids), int(self.corpus.labels[review])


def make_corpus_loader(corpus: Corpus, length: int, batch_size: int, seed: int = 0) -> DataLoader:
    """A loader of batches of chunks, as `minitransformer.data.collate` makes them, in an order that can be resumed."""
    sampler = _ChunkSampler(corpus, length, batch_size, seed)
    return DataLoader(
        _ChunkDataset(corpus), batch_sampler=sampler, collate_fn=collate, generator=torch.Generator()
    )


# chapters/day09_sprint.md · The loss of hidden words
@dataclass(frozen=True)
class MaskedLMObjective:
    """Name the hidden tokens; with a `label_weight` above 0, also the label.

    A share `rate` is hidden. Which tokens is a pure function of `seed` and the step.
    """

    rate: float = 0.2
    label_weight: float = 0.0
    seed: int = 0

    def hide(self, batch: dict[str, Tensor], vocab_size: int, step: int) -> dict[str, Tensor]:
        """The batch as the model sees it, and what is asked of it, by places."""
        seed = 1_000_003 * (self.seed % 2**43) + step  # below 2^63, as PyTorch wants it
        dice = torch.Generator().manual_seed(seed)
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        seen, chosen = mask_tokens(ids, mask, vocab_size, self.rate, dice)
        places, known = chosen.flatten().nonzero()[:, 0], (labels >= 0).nonzero()[:, 0]
        asked = {"places": places, "wanted": ids.flatten()[places]}
        asked |= {"known": known, "labels": labels[known]}
        return {"input_ids": seen, "attention_mask": mask, **asked}

    def losses(
        self, model: TransformerForMaskedLM, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Loss of tokens, of labels; hidden tokens that were named, and all of them."""
        part = self.hide(batch, model.config.vocab_size, step)
        part = _to_device(part, next(model.parameters()).device)
        wanted, size = part["wanted"], len(part["wanted"])
        hidden = model.encoder(part["input_ids"], part["attention_mask"])
        states = hidden.flatten(0, 1).index_select(0, part["places"])
        logits = model.name_tokens(states)
        token_loss = F.cross_entropy(logits, wanted, reduction="sum") / max(1, size)
        label_loss = token_loss.new_zeros(())
        if self.label_weight > 0 and len(part["labels"]):
            answers = model.classify(hidden, part["attention_mask"])
            answers = answers.index_select(0, part["known"])
            label_loss = F.cross_entropy(answers, part["labels"])
        named = (logits.argmax(-1) == wanted).sum()
        return token_loss, label_loss, named, size
