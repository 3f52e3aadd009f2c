# Generated from chapters/workshop_files.md; edit the chapter, not this file.
"""Labelled texts from files: a local mirror of the data sets, the hub, tables of your own."""

import csv
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["data_folder", "load_table", "read_table"]

# chapters/workshop_files.md · A table in a file
_FILE_TYPES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")

# each row, or its JSON, after its place: "line 2", or "row 1" of a Parquet file
_Rows = Iterator[tuple[str, Any]]

_OPEN_QUOTE = (
    'a quote (") at the beginning of a field reaches over a tab or a line end: '
    "put the field in quotes, and write its own quotes twice"
)


def _rows_of(path: Path) -> _Rows:
    kind = path.suffix.lower()
    if kind == ".parquet":
        from pyarrow.parquet import ParquetFile  # here, because many uses never need it

        with ParquetFile(path) as file:
            yield from _arrow_rows(file.read())
        return
    with path.open(encoding="utf-8-sig", newline="") as file:  # drops a byte-order mark
        if kind in (".csv", ".tsv"):
            rows = csv.DictReader(file, delimiter="," if kind == ".csv" else "\t", strict=True)
            _no_column_twice(rows.fieldnames or [])
            for row in rows:
                if kind == ".tsv" and re.search(r"[\t\n]", "".join(map(str, row.values()))):
                    raise ValueError(_OPEN_QUOTE)
                yield f"line {rows.line_num}", row
        else:
            lines = enumerate(file, 1)
            yield from ((f"line {i}", line) for i, line in lines if line.strip())


def _arrow_rows(table: Any) -> _Rows:
    _no_column_twice(table.column_names)
    told = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = told.get("info", {}).get("features", {}).get("label", {}).get("names") or []
    for i, row in enumerate(table.to_pylist(), 1):
        if (label := row.get("label")) in range(len(names)):
            row["label"] = names[label]
        yield f"row {i}", row


def _no_column_twice(columns: Sequence[str]) -> None:
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"the column {twice[0]!r} stands twice")


# chapters/workshop_files.md · A row
_CLASSES = {"0": 0, "negative": 0, "neg": 0, "1": 1, "positive": 1, "pos": 1}


def _pair(row: Any, columns: Sequence[str], classes: dict[str, int]) -> tuple[str, int]:
    """The text of a row, from the one of `columns` that is there, and its label."""
    if not isinstance(row, dict):
        raise ValueError(f"it has no named columns: {row!r:.60}")
    if None in row:
        raise ValueError("it has more fields than the header (a text with the separator in it needs quotes)")
    found = [name for name in columns if name in row]
    if len(found) != 1 or "label" not in row:
        wanted, there = " or ".join(map(repr, columns)), ", ".join(map(repr, row))
        raise ValueError(f"the columns must be 'label' and {wanted}, got {there:.200}")
    text, label = row[found[0]], row["label"]
    if not isinstance(text, str) or all(unicodedata.category(c)[0] in "CZ" for c in text):
        raise ValueError(f"{found[0]} must be a text with something to read, got {text!r:.60}")
    text.encode()  # half a character, which JSON can spell, is a UnicodeEncodeError
    word = str(label).strip().lower() if type(label) in (int, str) else ""
    if word not in classes:
        raise ValueError(f"label must be one of {', '.join(classes)}, got {label!r:.60}")
    return text, classes[word]


_Columns = tuple[list[str], list[int]]  # texts and labels


def _checked(rows: _Rows, columns: Sequence[str], unlabelled: bool) -> _Columns:
    pairs, place = [], "the beginning"
    try:
        for where, found in rows:
            place = where
            row = json.loads(found) if isinstance(found, str) else found
            pairs.append(_pair(row, columns, {"-1": -1} if unlabelled else _CLASSES))
            place = f"after {where}"
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error.msg}") from None
    except Exception as error:
        raise ValueError(f"{place}: {_first_cause(error)}") from None
    if not pairs:
        raise ValueError("it holds no rows")
    return [text for text, _ in pairs], [label for _, label in pairs]


def _first_cause(error: BaseException) -> str:
    """What went wrong to begin with, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def read_table(
    path: str | Path, columns: Sequence[str] = ("text", "sentence"), unlabelled: bool = False
) -> _Columns:
    """The texts and labels in a CSV, TSV, JSON lines or Parquet file with named columns.

    Raises:
        ValueError: one sentence that names the file, and where in it something is wrong.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix.lower() not in _FILE_TYPES:
            raise ValueError(f"its name must end in one of {', '.join(_FILE_TYPES)}")
        if not path.is_file():
            raise ValueError(f"there is no such file (a relative path starts at {Path.cwd()})")
        return _checked(_rows_of(path), columns, unlabelled)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {_first_cause(error)}") from None


# chapters/workshop_files.md · A data set by its name
def data_folder() -> Path | None:
    """The local mirror of the data sets that MINITRANSFORMER_DATA names, if it names one."""
    if not (name := os.environ.get("MINITRANSFORMER_DATA", "")):
        return None
    here = Path.cwd()  # a chapter's kernel starts one folder below the project's
    places = list(dict.fromkeys(base / Path(name).expanduser() for base in (here, here.parent)))
    if found := [place for place in places if place.is_dir()]:
        return found[0]
    looked = " or ".join(map(str, places))
    raise ValueError(f"MINITRANSFORMER_DATA must name a folder, but there is no folder {name!r} ({looked})")


def _split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in a data set's folder; a ValueError if it is not exactly one table."""
    name = re.compile(rf"{split}(-\d+-of-(\d+))?({'|'.join(map(re.escape, _FILE_TYPES))})")
    matches = {path: name.fullmatch(path.name) for path in sorted(folder.rglob("*"))}
    found = {path: match for path, match in matches.items() if match}
    if not found:
        raise ValueError(f"it holds no {split}.parquet and no {split}-00000-of-00001.parquet")
    whole = {int(match[2] or 1) for match in found.values()} == {len(found)}
    if not whole or len({(path.parent, path.suffix) for path in found}) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ValueError(f"the files of {split} must be all parts of one table, got {names}")
    return list(found)


def load_table(title: str, name: str, split: str, column: str) -> tuple[list[str], list[int], str]:
    """Texts, labels and source of a split of the data set `name`, from the mirror or else from the hub.

    Raises:
        ValueError: one sentence that names the data set's folder or its name on the hub.
    """
    mirror, unlabelled = data_folder(), split == "unsupervised"
    where = f"hub, {name}; MINITRANSFORMER_DATA may name a local mirror"
    if mirror:
        where = f"local mirror {mirror / name}"
    try:
        if mirror:
            files = _split_files(mirror / name, split)
            parts = [read_table(path, [column], unlabelled) for path in files]
        else:
            from datasets import load_dataset  # here, as it takes seconds to import

            rows = _arrow_rows(load_dataset(name, split=split).data.table)
            parts = [_checked(rows, [column], unlabelled)]
    except Exception as error:  # whatever the libraries raise
        text = f"{title} {split} cannot be loaded ({where}): {_first_cause(error)}"
        raise ValueError(text) from error
    texts = [text for part in parts for text in part[0]]
    labels = [label for part in parts for label in part[1]]
    return texts, labels, f"{title} {split} ({'local mirror' if mirror else 'hub'})"
