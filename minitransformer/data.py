# Generated from chapters/day04_encoder_and_data.md, chapters/day08_data_schedule_monitoring.md, chapters/workshop_files.md; edit the chapters, not this file.
"""The data sets, and loaders of padded batches: grouped by length, in an order that can be resumed."""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from minitransformer.attention import padding_mask
from minitransformer.files import _FILE_TYPES, data_folder, load_table, read_table
from minitransformer.tokenizer import WordTokenizer

__all__ = [
    "EpochSampler", "Examples", "TextClassificationDataset", "collate", "epoch_batches",
    "load_examples", "load_imdb", "load_sst2", "load_sst2_test", "make_loader", "sst2_is_present",
    "toy_reviews",
]  # fmt: skip


# chapters/workshop_files.md · Is it there?
def sst2_is_present() -> bool:
    """Whether a folder of SST-2 is on this disk: in the mirror, or in the hub's cache."""
    if (mirror := data_folder()) is not None:
        return (mirror / "stanfordnlp/sst2").is_dir()
    from huggingface_hub.constants import HF_HOME  # which also looks at XDG_CACHE_HOME

    cache = Path(os.environ.get("HF_DATASETS_CACHE", Path(HF_HOME, "datasets")))
    return any((cache / "stanfordnlp___sst2").rglob("*.arrow"))


# chapters/day04_encoder_and_data.md · One type for every source
@dataclass(frozen=True)
class Examples:
    """Texts, labels (0 negative, 1 positive, -1 unknown), and where they come from."""

    texts: list[str]
    labels: list[int]
    source: str

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise ValueError(f"{self.source}: {len(self.texts)} texts, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.texts)


def _one_of(split: str, *allowed: str) -> str:
    """The split, if it is one that the data set has."""
    if split not in allowed:
        raise ValueError(f"split must be one of {', '.join(allowed)}, got {split!r}")
    return split


def load_sst2(split: str) -> Examples:
    """SST-2 as in GLUE (Wang et al., 2018): "train" phrases, "validation" sentences."""
    _one_of(split, "train", "validation")
    return Examples(*load_table("SST-2", "stanfordnlp/sst2", split, "sentence"))


def load_sst2_test() -> Examples:
    """SST's 1,821 labelled test sentences; GLUE does not publish its labels."""
    return Examples(*load_table("SST-2", "SetFit/sst2", "test", "text"))


def load_imdb(split: str) -> Examples:
    """IMDB (Maas et al., 2011); the reviews of "unsupervised" have the label -1."""
    _one_of(split, "train", "test", "unsupervised")
    return Examples(*load_table("IMDB", "stanfordnlp/imdb", split, "text"))


# chapters/day04_encoder_and_data.md · A data set that a bag of words cannot solve
_TOY_NOUNS = ("film", "cast", "plot", "script", "story", "score", "ending", "pace")

_TOY_GOOD = ("fine", "warm", "clever", "funny", "moving", "sharp", "bold", "fresh")

_TOY_BAD = ("bad", "dull", "clumsy", "tired", "hollow", "weak", "flat", "messy")


def _toy_clauses(positive: bool) -> list[tuple[str, str]]:
    """Every clause of one polarity, as (noun, words): plain, negated or undone."""
    plain, turned = (_TOY_GOOD, _TOY_BAD) if positive else (_TOY_BAD, _TOY_GOOD)
    undone = "redeemed" if positive else "wasted"
    found = []
    for noun in _TOY_NOUNS:
        found += [(noun, f"a {adjective} {noun}") for adjective in plain]
        found += [(noun, f"not a {adjective} {noun} at all") for adjective in turned]
        found += [(noun, f"a {adjective} {noun} {undone}") for adjective in turned]
    return found


def _toy_twins() -> list[tuple[str, str]]:
    """Every pair (positive, negative) that differs only in the order of its clauses."""
    pairs = product(_toy_clauses(True), _toy_clauses(False))
    return [(f"{bad} , but {good}", f"{good} , but {bad}") for (n, good), (m, bad) in pairs if n != m]


def toy_reviews(size: int, seed: int) -> Examples:
    """So many different toy reviews, twin beside twin: exactly half are positive."""
    pairs = _toy_twins()
    most = 2 * len(pairs)
    if size < 2 or size % 2 or size > most:
        allowed = f"an even number in 2 … {most}, because reviews come in pairs"
        raise ValueError(f"size must be {allowed}, got {size}")
    chosen = random.Random(seed).sample(pairs, size // 2)
    texts = [text for pair in chosen for text in pair]
    source = f"toy reviews ({size} generated, seed {seed})"
    return Examples(texts, [1, 0] * len(chosen), source)


_TOY_SPLITS = {"train": slice(0, 3000), "validation": slice(3000, 3500), "test": slice(3500, 4000)}


def load_examples(name: str, split: str) -> Examples:
    """The split "train", "validation" or "test" of "sst2" or "toy", or a file for it.

    The splits of the toy reviews share no review; files are read by `read_table`.
    """
    part = _TOY_SPLITS[_one_of(split, *_TOY_SPLITS)]
    if name == "sst2":
        return load_sst2_test() if split == "test" else load_sst2(split)
    if name == "toy":
        reviews = toy_reviews(4000, seed=0)
        texts, labels = reviews.texts[part], reviews.labels[part]
        return Examples(texts, labels, f"toy {split} ({len(texts)} generated reviews)")
    if Path(name).suffix.lower() not in _FILE_TYPES:
        known = f"'sst2', 'toy' or a file that ends in one of {', '.join(_FILE_TYPES)}"
        raise ValueError(f"the name of the examples must be {known}, got {name!r}")
    examples = Examples(*read_table(name), f"{Path(name).name} ({split})")
    if split == "train" and len(set(examples.labels)) == 1:
        only = examples.labels[0]
        raise ValueError(f"{name} holds only the label {only}; training needs both")
    return examples


# chapters/day04_encoder_and_data.md · Dataset: one item at a time
class TextClassificationDataset(Dataset):
    """Examples as (input_ids, label), tokenized once when the data set is made."""

    def __init__(self, examples: Examples, tokenizer: WordTokenizer):
        self.input_ids = [tokenizer.encode(text) for text in examples.texts]
        self.labels = examples.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return self.input_ids[index], self.labels[index]


# chapters/day04_encoder_and_data.md · Collate: a list of items becomes a batch
def collate(items: Sequence[tuple[Sequence[int] | Tensor, int]], padding_id: int = 0) -> dict[str, Tensor]:
    """A list of items as one batch, padded to its longest sequence.

    Returns:
        `input_ids` `[B, T]` and `labels` `[B]`, int64; `attention_mask` `[B, T]`, bool.
    """
    if not items:
        raise ValueError("a batch needs at least one item, got none")
    lengths = torch.tensor([len(ids) for ids, _ in items])
    attention_mask = padding_mask(lengths)
    input_ids = torch.full(attention_mask.shape, padding_id)
    rows = [torch.as_tensor(ids, dtype=torch.int64) for ids, _ in items]
    input_ids[attention_mask] = torch.cat(rows)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": torch.tensor([label for _, label in items], dtype=torch.int64),
    }


# chapters/day08_data_schedule_monitoring.md · An order that depends on nothing but seed and epoch
def make_loader(
    examples: Examples,
    tokenizer: WordTokenizer,
    batch_size: int = 64,
    shuffle: bool = False,
    seed: int = 0,
    group_by_length: bool = False,
) -> DataLoader:
    """A loader of padded batches; `batch_sampler.set_epoch` says where it begins.

    Its order is a pure function of seed and epoch; a pass that nobody chooses
    is the next epoch, beginning with 0.
    """
    if len(examples) == 0:
        raise ValueError(f"{examples.source} holds no examples")
    dataset = TextClassificationDataset(examples, tokenizer)
    lengths = [len(ids) for ids in dataset.input_ids]
    return DataLoader(
        dataset,
        batch_sampler=EpochSampler(lengths, batch_size, shuffle, group_by_length, seed),
        collate_fn=partial(collate, padding_id=tokenizer.padding_id),
        generator=torch.Generator(),  # its own: the global one is not drawn from
    )


# chapters/day08_data_schedule_monitoring.md · Similar lengths together
_POOL = 50


def epoch_batches(
    lengths: np.ndarray,
    batch_size: int,
    shuffle: bool,
    group_by_length: bool,
    seed: int,
    epoch: int,
    pool: int = _POOL,
) -> list[list[int]]:
    """All batches of an epoch as lists of indices, each index once; one may be short.

    With `group_by_length` the (shuffled) examples are cut into pools of `pool` batches,
    and each pool is sorted by length before it is cut into batches, which are then
    shuffled in turn.
    """
    random = np.random.default_rng((seed, epoch))
    n = len(lengths)
    order = random.permutation(n) if shuffle else np.arange(n)
    if group_by_length:
        pools = [order[start : start + pool * batch_size] for start in range(0, n, pool * batch_size)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in pools])
    batches = [order[start : start + batch_size].tolist() for start in range(0, n, batch_size)]
    if group_by_length and shuffle:
        batches = [batches[i] for i in random.permutation(len(batches))]
    return batches


# chapters/day08_data_schedule_monitoring.md · An order that depends on nothing but seed and epoch
class EpochSampler(Sampler[list[int]]):
    """Epoch after epoch, batches in an order that depends on seed and epoch alone."""

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        shuffle: bool = True,
        group_by_length: bool = False,
        seed: int = 0,
    ):
        if len(lengths) == 0 or batch_size < 1:
            raise ValueError(
                "a sampler needs examples and a batch_size of at least 1, "
                f"got {len(lengths)} and {batch_size}"
            )
        self.size = -(-len(lengths) // batch_size)  # rounded up
        self.batches = partial(epoch_batches, np.asarray(lengths), batch_size, shuffle, group_by_length, seed)
        self.epoch, self.first = 0, 0

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch (from 0) of the next pass, and the batch it begins with."""
        if epoch < 0 or not 0 <= first <= len(self):
            raise ValueError(
                f"epoch must not be negative and first must lie in 0 … {len(self)}, got {epoch} and {first}"
            )
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.batches(self.epoch)[self.first :]
        self.epoch, self.first = self.epoch + 1, 0  # the next pass is the next epoch
        return iter(batches)
