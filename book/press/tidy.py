"""Keep the chapters' own text in one form: canonical MyST Markdown, with every code cell formatted by ruff."""

import tempfile
import warnings
from pathlib import Path

import jupytext
import nbformat

from book.press.read import PressError, read_chapter, relative
from book.press.tangle import ruff
from book.press.write import diff

FILTER = (
    "kernelspec,jupytext,mystnb,minitransformer,"
    "-jupytext.text_representation.jupytext_version,-jupytext.text_representation.format_version"
)

WIDTH = 88  # so that no page scrolls sideways
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tidied(path: Path) -> str:
    """The chapter as the press wants it: a round trip through a notebook's JSON, each code cell formatted.

    JSON sorts the keys of the head and of the cells' options; a chapter in that order survives any editor. The head
    names what jupytext may keep of a notebook's metadata, so that it holds wherever the chapter is opened.
    """
    read_chapter(path)  # a chapter with an error is reported by its line, before anything is rewritten
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst")
    notebook.metadata.setdefault("jupytext", {})["notebook_metadata_filter"] = FILTER
    notebook.metadata["kernelspec"] = KERNEL  # an editor may put the name of its own there
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, f"cell{index:03}.py") for index in range(len(cells))]
        for place, cell in zip(places, cells, strict=True):
            place.write_text(cell.source + "\n", encoding="utf-8")
        ruff("format", "--quiet", folder, "--line-length", str(WIDTH))
        for place, cell in zip(places, cells, strict=True):
            cell.source = place.read_text(encoding="utf-8").rstrip("\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = nbformat.reads(nbformat.writes(notebook), as_version=4)
        return jupytext.writes(stored, fmt="md:myst")


def tidy(paths: list[Path]) -> list[str]:
    """Rewrite the chapters that are not in canonical form; returns their names."""
    done = []
    for path in paths:
        if not path.is_file():
            raise PressError(f"there is no chapter {path}")
        text = tidied(path)
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8", newline="\n")
            done.append(relative(path))
    return done


def untidy(path: Path) -> str:
    """The difference between a chapter and its canonical form, as a diff; empty if there is none."""
    text, canonical = path.read_text(encoding="utf-8"), tidied(path)
    return "" if text == canonical else diff(text, canonical, relative(path), "canonical form")
