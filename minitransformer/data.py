# Generated from chapters/day04_encoder_and_data.md, chapters/day08_data_schedule_monitoring.md; edit the chapters, not this file.
"""The data sets, and loaders of padded batches: grouped by length, in an order that can be resumed."""

import csv
import json
import os
import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from minitransformer.attention import padding_mask
from minitransformer.tokenizer import WordTokenizer

__all__ = [
    "POOL",
    "TOY_BAD",
    "TOY_GOOD",
    "TOY_NOUNS",
    "TOY_SPLITS",
    "EpochSampler",
    "Examples",
    "TextClassificationDataset",
    "collate",
    "data_folder",
    "epoch_batches",
    "first_cause",
    "load_examples",
    "load_imdb",
    "load_rows",
    "load_sst2",
    "load_sst2_test",
    "make_loader",
    "one_of",
    "read_examples",
    "sst2_is_present",
    "toy_clauses",
    "toy_reviews",
    "toy_twins",
]  # fmt: skip


# chapters/day04_encoder_and_data.md · Loading: one type for every source
@dataclass(frozen=True)
class Examples:
    """Texts with a label each (0 negative, 1 positive, -1 unknown), and a line that says where they come from."""

    texts: list[str]
    labels: list[int]
    source: str

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise ValueError(f"{self.source}: {len(self.texts)} texts, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.texts)


def data_folder() -> Path | None:
    """The local mirror of the data sets that the environment variable MINITRANSFORMER_DATA names, if it names one."""
    if not (name := os.environ.get("MINITRANSFORMER_DATA", "")):
        return None
    here = Path.cwd()  # a chapter's kernel starts one folder below the project's
    places = list(dict.fromkeys(base / Path(name).expanduser() for base in (here, here.parent)))
    if found := [place for place in places if place.is_dir()]:
        return found[0]
    looked = " or ".join(map(str, places))
    raise ValueError(f"MINITRANSFORMER_DATA must name a folder, but there is no folder {name!r} ({looked})")


_FILE_TYPES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def _rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row of a table in a file, with its place: "line 2", or "row 1" of a Parquet file."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        from pyarrow.parquet import ParquetFile  # here, because many uses never need it

        with ParquetFile(path) as file:
            table = file.read()
        _no_column_twice(table.column_names)
        card = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        features = card.get("info", {}).get("features", {})
        yield from _by_class_name(table.to_pylist(), features.get("label", {}).get("names"))
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        if kind in (".csv", ".tsv"):
            rows = csv.DictReader(file, delimiter="," if kind == ".csv" else "\t", strict=True)
            _no_column_twice(rows.fieldnames or [])
            yield from ((f"line {rows.line_num}", row) for row in rows)
        else:
            yield from ((f"line {i}", json.loads(line)) for i, line in enumerate(file, 1) if line.strip())


def _no_column_twice(columns: Sequence[str]) -> None:
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"the column {twice[0]!r} stands twice")


def _by_class_name(rows: Iterable[dict], names: Sequence[str] | None) -> Iterator[tuple[str, dict]]:
    for i, row in enumerate(rows, 1):
        label = row.get("label")
        if names and isinstance(label, int) and 0 <= label < len(names):
            row = row | {"label": names[label]}
        yield f"row {i}", row


_CLASSES = {"0": 0, "negative": 0, "neg": 0, "1": 1, "positive": 1, "pos": 1}


def _checked(row: Any, columns: Sequence[str], classes: dict[str, int]) -> tuple[str, int]:
    """The text of a row, from the one of `columns` that is there, and its label; a ValueError says what is wrong."""
    if not isinstance(row, dict) or None in row:
        kind = "more fields than the header" if isinstance(row, dict) else f"no named columns: {row!r:.60}"
        raise ValueError(f"it has {kind} (a text with the separator in it needs quotes)")
    found = [name for name in columns if name in row]
    if len(found) != 1 or "label" not in row:
        wanted, there = " or ".join(map(repr, columns)), ", ".join(map(repr, row))
        raise ValueError(f"the columns must be 'label' and {wanted}, got {there:.200}")
    text, label = row[found[0]], row["label"]
    if not isinstance(text, str) or all(unicodedata.category(letter)[0] in "CZ" for letter in text):
        raise ValueError(f"{found[0]} must be a text with something to read, got {text!r:.60}")
    text.encode()  # half a character, which JSON can spell, is a UnicodeEncodeError
    word = str(label).strip().lower() if type(label) in (int, str) else ""
    if word not in classes:
        raise ValueError(f"label must be one of {', '.join(classes)}, got {label!r:.60}")
    return text, classes[word]


def _examples(
    rows: Iterable[tuple[str, Any]], columns: Sequence[str], source: str, unlabelled: bool = False
) -> Examples:
    """All rows, checked; a ValueError begins with the place of the bad one."""
    pairs, place = [], "the beginning"
    try:
        for where, row in rows:
            place = where
            pairs.append(_checked(row, columns, {"-1": -1} if unlabelled else _CLASSES))
    except json.JSONDecodeError as error:
        raise ValueError(f"the line after {place} is not JSON: {error.msg}") from None
    except Exception as error:
        raise ValueError(f"{place}: {first_cause(error)}") from None
    if not pairs:
        raise ValueError("it holds no rows")
    return Examples([text for text, _ in pairs], [label for _, label in pairs], source)


def read_examples(
    path: str | Path,
    source: str = "",
    columns: Sequence[str] = ("text", "sentence"),
    unlabelled: bool = False,
) -> Examples:
    """The texts and labels in a CSV, TSV, JSON lines or Parquet file, with a header or names of columns.

    Raises:
        ValueError: one sentence that names the file, and the line or row that is wrong.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix.lower() not in _FILE_TYPES:
            raise ValueError(f"its name must end in one of {', '.join(_FILE_TYPES)}")
        if not path.is_file():
            raise ValueError(f"there is no such file (a relative path starts at {Path.cwd()})")
        return _examples(_rows_of(path), columns, source or path.name, unlabelled)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {first_cause(error)}") from None


def _split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in a data set's folder; a ValueError if it is not exactly one table."""
    name = re.compile(rf"{split}(-\d+-of-(\d+))?({'|'.join(map(re.escape, _FILE_TYPES))})")
    found = {path: match for path in sorted(folder.rglob("*")) if (match := name.fullmatch(path.name))}
    if not found:
        raise ValueError(f"it holds no {split}.parquet and no {split}-00000-of-00001.parquet")
    whole = {int(match[2] or 1) for match in found.values()} == {len(found)}
    if not whole or len({(path.parent, path.suffix) for path in found}) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ValueError(f"the files of {split} must be all parts of one table, got {names}")
    return list(found)


def load_rows(title: str, name: str, split: str, text: str) -> Examples:
    """A split of the data set `name`, from the local mirror or else from the hub; its column `text` holds the texts.

    Raises:
        ValueError: one sentence that names the data set's folder or its name on the hub, if it cannot be read.
    """
    mirror, unlabelled = data_folder(), split == "unsupervised"
    where = (
        f"local mirror {mirror / name}"
        if mirror
        else f"hub, {name}; MINITRANSFORMER_DATA may name a local mirror"
    )
    source = f"{title} {split} ({'local mirror' if mirror else 'hub'})"
    try:
        if mirror:
            files = _split_files(mirror / name, split)
            parts = [read_examples(path, source, [text], unlabelled) for path in files]
            return Examples([t for e in parts for t in e.texts], [y for e in parts for y in e.labels], source)
        from datasets import load_dataset  # here, because it takes seconds to import

        table = load_dataset(name, split=split)
        rows = _by_class_name(table.to_list(), getattr(table.features.get("label"), "names", None))
        return _examples(rows, [text], source, unlabelled)
    except Exception as error:  # whatever the libraries raise
        raise ValueError(f"{title} {split} cannot be loaded ({where}): {first_cause(error)}") from error


def first_cause(error: BaseException) -> str:
    """What went wrong to begin with, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def one_of(split: str, *allowed: str) -> str:
    """The split, if it is one that the data set has."""
    if split not in allowed:
        raise ValueError(f"split must be one of {', '.join(allowed)}, got {split!r}")
    return split


def load_sst2(split: str) -> Examples:
    """SST-2 as in GLUE: "train" holds labelled phrases, "validation" whole sentences (Wang et al., 2018)."""
    return load_rows("SST-2", "stanfordnlp/sst2", one_of(split, "train", "validation"), "sentence")


def load_sst2_test() -> Examples:
    """SST's 1,821 labelled test sentences; GLUE keeps the labels of its own test split to itself."""
    return load_rows("SST-2", "SetFit/sst2", "test", "text")


def load_imdb(split: str) -> Examples:
    """Film reviews of IMDB (Maas et al., 2011); the split "unsupervised" has the label -1 throughout."""
    split = one_of(split, "train", "test", "unsupervised")
    return load_rows("IMDB", "stanfordnlp/imdb", split, "text")


def sst2_is_present() -> bool:
    """Whether SST-2 can be read without a network: from the local mirror, or from the hub's cache on disk."""
    if (mirror := data_folder()) is not None:
        return (mirror / "stanfordnlp/sst2").is_dir()
    from huggingface_hub.constants import HF_HOME  # which also looks at XDG_CACHE_HOME

    cache = Path(os.environ.get("HF_DATASETS_CACHE", Path(HF_HOME, "datasets")))
    return any((cache / "stanfordnlp___sst2").glob("*/*/*/*.arrow"))


# chapters/day04_encoder_and_data.md · A data set that a bag of words cannot solve
TOY_NOUNS = ("film", "cast", "plot", "script", "story", "score", "ending", "pace")

TOY_GOOD = ("fine", "warm", "clever", "funny", "moving", "sharp", "bold", "fresh")

TOY_BAD = ("bad", "dull", "clumsy", "tired", "hollow", "weak", "flat", "messy")


def toy_clauses(positive: bool) -> list[tuple[str, str]]:
    """Every clause of one polarity, as (noun, words): plain, negated, or undone by its last word."""
    plain, turned, undone = (TOY_GOOD, TOY_BAD, "redeemed") if positive else (TOY_BAD, TOY_GOOD, "wasted")
    found = []
    for noun in TOY_NOUNS:
        found += [(noun, f"a {adjective} {noun}") for adjective in plain]
        found += [(noun, f"not a {adjective} {noun} at all") for adjective in turned]
        found += [(noun, f"a {adjective} {noun} {undone}") for adjective in turned]
    return found


def toy_twins() -> list[tuple[str, str]]:
    """Every pair of reviews (positive, negative) that differ only in the order of their two clauses."""
    pairs = product(toy_clauses(True), toy_clauses(False))
    return [(f"{bad} , but {good}", f"{good} , but {bad}") for (n, good), (m, bad) in pairs if n != m]


def toy_reviews(size: int, seed: int) -> Examples:
    """So many different reviews of the toy grammar, twin beside twin, so that exactly half are positive."""
    pairs = toy_twins()
    if size < 2 or size % 2 or size > 2 * len(pairs):
        raise ValueError(
            f"size must be an even number in 2 … {2 * len(pairs)}, because reviews come in pairs, got {size}"
        )
    chosen = random.Random(seed).sample(pairs, size // 2)
    texts = [text for pair in chosen for text in pair]
    return Examples(texts, [1, 0] * len(chosen), f"toy reviews ({size} generated, seed {seed})")


TOY_SPLITS = {"train": slice(0, 3000), "validation": slice(3000, 3500), "test": slice(3500, 4000)}


def load_examples(name: str, split: str) -> Examples:
    """The split "train", "validation" or "test" of "sst2", or of the "toy" reviews (whose splits share no review).

    Any other name is that of a file (see `read_examples`) which is to be used as this split.
    """
    part = TOY_SPLITS[one_of(split, *TOY_SPLITS)]
    if Path(name).suffix.lower() in _FILE_TYPES:
        examples = read_examples(name, f"{Path(name).name} ({split})")
        if split == "train" and len(set(examples.labels)) == 1:
            raise ValueError(f"{name} holds only the label {examples.labels[0]}; training needs both")
        return examples
    if name not in ("sst2", "toy"):
        known = f"'sst2', 'toy' or a file that ends in one of {', '.join(_FILE_TYPES)}"
        raise ValueError(f"the name of the examples must be {known}, got {name!r}")
    if name == "sst2":
        return load_sst2_test() if split == "test" else load_sst2(split)
    reviews = toy_reviews(4000, seed=0)
    texts, labels = reviews.texts[part], reviews.labels[part]
    return Examples(texts, labels, f"toy {split} ({len(texts)} generated reviews)")


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
def collate(items: Sequence[tuple[list[int], int]], padding_id: int = 0) -> dict[str, Tensor]:
    """A list of items as one batch, padded to its longest sequence.

    Returns:
        `input_ids` `[B, T]` int64, `attention_mask` `[B, T]` bool (True: real token), `labels` `[B]` int64.
    """
    if not items:
        raise ValueError("a batch needs at least one item, got none")
    lengths = torch.tensor([len(ids) for ids, _ in items])
    attention_mask = padding_mask(lengths)
    input_ids = torch.full(attention_mask.shape, padding_id)
    input_ids[attention_mask] = torch.tensor([token for ids, _ in items for token in ids])
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": torch.tensor([label for _, label in items]),
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
    """A loader of padded batches, whose `batch_sampler.set_epoch` chooses the epoch and the first batch.

    Its order is a pure function of seed and epoch; a pass that nobody chooses is the next epoch, beginning with 0.
    """
    if len(examples) == 0:
        raise ValueError(f"{examples.source} holds no examples")
    dataset = TextClassificationDataset(examples, tokenizer)
    lengths = [len(ids) for ids in dataset.input_ids]
    return DataLoader(
        dataset,
        batch_sampler=EpochSampler(lengths, batch_size, shuffle, group_by_length, seed),
        collate_fn=partial(collate, padding_id=tokenizer.padding_id),
        generator=torch.Generator(),  # its own, so that a pass draws nothing from the global one
    )


# chapters/day08_data_schedule_monitoring.md · Similar lengths together
POOL = 50


def epoch_batches(
    lengths: np.ndarray,
    batch_size: int,
    shuffle: bool,
    group_by_length: bool,
    seed: int,
    epoch: int,
    pool: int = POOL,
) -> list[list[int]]:
    """All batches of an epoch as lists of indices; together they hold every index once, and only one may be short.

    With `group_by_length` the (shuffled) examples are cut into pools of `pool` batches, and each pool is sorted
    by length before it is cut into batches, which are then shuffled in turn.
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
    """The batches of one epoch after another, in an order that depends on nothing but seed and epoch."""

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
                f"a sampler needs examples and a batch_size of at least 1, got {len(lengths)} and {batch_size}"
            )
        self.size = -(-len(lengths) // batch_size)  # rounded up
        self.batches = partial(epoch_batches, np.asarray(lengths), batch_size, shuffle, group_by_length, seed)
        self.epoch, self.first = 0, 0

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch (from 0) that the next pass runs through, beginning with batch number `first`."""
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
