"""How pytest sees the book: shapes checked at run time, and `--nbmake` running the chapters themselves.

`pytest` runs the tests that the chapters export (`tests/test_*.py`) and the hand-written ones (`tests/book/`).
`pytest --nbmake chapters` runs every chapter from its Markdown source in a kernel, top to bottom.
"""

import os
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import jupytext
import nbmake.nb_run
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook
from nbmake.pytest_items import NbMakeFailureRepr, NotebookFailedException, NotebookItem

from book.press.floors import CHAPTERS, ROOT
from book.press.read import PATTERNS, read_chapter, relative

collect_ignore_glob = [
    "*.ipynb",
    "*/*.ipynb",
]  # a notebook that an editor left beside its chapter is no chapter

# Every shape and type annotation of the package is checked in every call that a test makes.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere in Python
install_import_hook("minitransformer", "conftest.checked")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("overwrite", False):
        raise pytest.UsageError(
            "--overwrite would write JSON over the chapters' Markdown; run the chapters without it"
        )
    if config.getoption("nbmake", False):
        os.environ.setdefault("MINITRANSFORMER_BOOK", "1")  # an exercise's check must fail on its stub
        if data := os.environ.get("MINITRANSFORMER_DATA"):
            os.environ["MINITRANSFORMER_DATA"] = str(Path(data).resolve())  # kernels start in chapters/


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """nbmake collects `*.ipynb` only; here it gets the chapters' Markdown too."""
    is_chapter = file_path.parent == CHAPTERS and any(map(file_path.match, PATTERNS))
    if is_chapter and parent.config.getoption("nbmake", False):
        return ChapterFile.from_parent(parent, path=file_path)
    return None


class ChapterFile(pytest.File):
    def collect(self):
        yield ChapterItem.from_parent(self, filename=str(self.path))


class ChapterItem(NotebookItem):
    """One chapter, run by nbmake from its Markdown source."""

    def runtest(self) -> None:
        reader = SimpleNamespace(read=lambda path, version: jupytext.read(path, fmt="md:myst"))
        with patch.object(nbmake.nb_run, "nbformat", reader):
            super().runtest()

    def repr_failure(self, excinfo, style=None):
        """The failure with the line of the chapter that raised it."""
        if not isinstance(excinfo.value, NotebookFailedException):
            return super().repr_failure(excinfo, style)
        error = excinfo.value.args[0].error
        cell = read_chapter(self.path).cells[error.failing_cell_index]
        inside = re.search(r"Cell In\[\d+\], line (\d+)", plain(error.trace))
        line = cell.line + (int(inside[1]) - 1 if inside else 0)
        summary = f"{relative(self.path)}:{line}: {plain(error.summary)}"
        return NbMakeFailureRepr(f"{summary}\n{error.trace}", summary)


def plain(text: str) -> str:
    """Text without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not hasattr(
        session.config, "workerinput"
    ):  # with xdist, the controller checks what its workers collected
        check_complete(session.config, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids: list[str]) -> None:
    check_complete(node.config, ids)


def check_complete(config: pytest.Config, ids: list[str]) -> None:
    """A run over the whole folder must hold every chapter that the table of contents lists."""
    if not config.getoption("nbmake", False) or not whole_folder(config):
        return
    listed = set(re.findall(r"file: chapters/(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")))
    collected = {Path(name.split("::")[0]).stem for name in ids} & listed
    if missing := sorted(listed - collected):
        found = f"--nbmake collected {len(collected)} of {len(listed)} chapters"
        pytest.exit(f"{found}; missing: {', '.join(missing)}", returncode=pytest.ExitCode.USAGE_ERROR)


def whole_folder(config: pytest.Config) -> bool:
    """Whether the command line asks for all chapters, and leaves none out with -k or --deselect."""
    asked = {Path(config.invocation_params.dir, str(a)).resolve() for a in config.args}
    narrowed = config.option.keyword or config.option.deselect
    return bool(asked & {ROOT, CHAPTERS}) and not narrowed
