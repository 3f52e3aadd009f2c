# Generated from chapters/workshop_files.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.files`."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minitransformer.files import data_folder, load_table, read_table


# chapters/workshop_files.md · A row
def write_split(folder: str | Path, split: str, column: str, labels: list[int]) -> Path:
    """A Parquet file of two rows, as the hub has them."""
    path = Path(folder, f"{split}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: [f"{split} one", f"{split} two"], "label": labels}), path)
    return path


def test_read_table():
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "mine.csv")
        table.write_text('sentence,label\n"fine, warm",positive\ndull,0\n', encoding="utf-8")
        assert read_table(table) == (["fine, warm", "dull"], [1, 0])
        table.write_text("text,label\nfine,1\ndull,-1\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"mine.csv cannot be read: line 3: label must .* got '-1'"):
            read_table(table)
        table.write_text('text,label\nfine,1\n"dull"x,0\n', encoding="utf-8")
        with pytest.raises(ValueError, match="mine.csv cannot be read: after line 2: "):
            read_table(table)
        assert read_table(write_split(folder, "x", "text", [-1, -1]), unlabelled=True)[1] == [-1, -1]


# chapters/workshop_files.md · A data set by its name
def with_mirror(test: Callable[[Path], None]) -> None:
    """Run `test` where MINITRANSFORMER_DATA names a mirror with two rows per split."""
    layout = {
        "stanfordnlp/sst2": (("train", "validation"), "sentence"),
        "SetFit/sst2": (("test",), "text"),
        "stanfordnlp/imdb": (("train", "test", "unsupervised"), "text"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (splits, column) in layout.items():
            for split in splits:
                labels = [-1, -1] if split == "unsupervised" else [1, 0]
                write_split(Path(folder, name), split, column, labels)
        with patch.dict(os.environ, {"MINITRANSFORMER_DATA": folder}):
            test(Path(folder))


def test_load_table():
    def check(folder: Path) -> None:
        assert data_folder() == folder
        texts, labels, source = load_table("IMDB", "stanfordnlp/imdb", "test", "text")
        assert (texts, labels) == (["test one", "test two"], [1, 0])
        assert source == "IMDB test (local mirror)"
        with pytest.raises(ValueError, match=r"IMDB test cannot .*'label' and 'sentence'"):
            load_table("IMDB", "stanfordnlp/imdb", "test", "sentence")  # it has no such column
        broken = folder / "stanfordnlp/sst2/train.parquet"
        broken.write_bytes(broken.read_bytes()[:200])
        with pytest.raises(ValueError, match=rf"SST-2 train cannot .* \(local mirror {folder}"):
            load_table("SST-2", "stanfordnlp/sst2", "train", "sentence")

    with_mirror(check)
    nowhere = patch.dict(os.environ, {"MINITRANSFORMER_DATA": "/no/such/folder"})
    with nowhere, pytest.raises(ValueError, match="there is no folder '/no/such/folder'"):
        data_folder()


def test_load_table_from_the_hub():
    from datasets import ClassLabel, Dataset, Features, Value

    features = {"text": Value("string"), "label": ClassLabel(names=["positive", "negative"])}
    rows = {"text": ["fine", "dull"], "label": [0, 1]}
    hub = Dataset.from_dict(rows, features=Features(features))
    with patch.dict(os.environ, {"MINITRANSFORMER_DATA": ""}):
        with patch("datasets.load_dataset", lambda name, split: hub):
            found = load_table("Mine", "some/one", "train", "text")
        assert found == (["fine", "dull"], [1, 0], "Mine train (hub)")
        with patch("datasets.load_dataset", side_effect=OSError("no network")):
            with pytest.raises(ValueError, match=r"\(hub, some/one; .*\): no network"):
                load_table("Mine", "some/one", "train", "text")
