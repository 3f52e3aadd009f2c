"""Bring files to disk, all or nothing, and tell what moved."""

import difflib
import os
import shutil
import tempfile
from pathlib import Path

from book.press.floors import PACKAGE, TESTS

IGNORED = {"__pycache__"}


def files_on_disk(root: Path) -> dict[str, str]:
    """What lies where the press writes: everything in the package, and the test files beside `tests/book/`."""
    paths = [p for p in (root / PACKAGE).rglob("*") if p.is_file() and not IGNORED & set(p.parts)]
    paths += (root / TESTS).glob("*.py")
    return {
        p.relative_to(root).as_posix(): p.read_text(encoding="utf-8", errors="replace") for p in sorted(paths)
    }


def moved(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """The paths that differ, and how: "new", "changed" or "deleted"."""
    words = {path: "new" if path not in old else "changed" for path in new if old.get(path) != new[path]}
    return dict(sorted((words | {path: "deleted" for path in old.keys() - new.keys()}).items()))


def write(files: dict[str, str], root: Path) -> dict[str, str]:
    """Make the disk equal to `files`: write what changed, delete orphans. Returns what moved.

    Everything is written beside its place first, so a full disk or a kill leaves the old files whole.
    """
    changes = moved(files_on_disk(root), files)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".press-") as folder:
        for index, (path, how) in enumerate(changes.items()):
            if how != "deleted":
                Path(folder, str(index)).write_text(files[path], encoding="utf-8", newline="\n")
        for index, (path, how) in enumerate(changes.items()):
            target = root / path
            if how == "deleted":
                target.unlink()
                remove_empty(target.parent, root)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder, str(index)), target)
    return changes


def remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not {p.name for p in folder.iterdir()} - IGNORED:
        shutil.rmtree(folder)
        folder = folder.parent


def diff(old: str, new: str, before: str, after: str) -> str:
    """A unified diff of two texts, without the line that git would add for a missing newline."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), before, after, lineterm="")
    return "\n".join(lines)
