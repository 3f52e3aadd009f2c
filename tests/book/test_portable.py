"""What holds on Linux must hold on Windows and macOS: encodings, line ends, paths, and files that are open.

Windows is played by its rules: another encoding of the terminal, and no file renamed or deleted while it is open.
"""

import ast
import csv
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from book.press.__main__ import main as press_main
from book.press.floors import CHAPTERS, ROOT
from book.press.read import chapter_paths, read_chapter
from book.press.tidy import untidy
from minitransformer.cli import main
from minitransformer.experiment.checkpoint import load_checkpoint
from minitransformer.experiment.folder import checkpoint_files, read_records
from minitransformer.experiment.recipe import ship
from minitransformer.files import read_table

TOY = str(ROOT / "configs/toy.yaml")
SMALL = ["--data.train_size", "64", "--training.epochs", "2", "--training.checkpoint_every", "1"]
SOURCES = [
    *(ROOT / "minitransformer").rglob("*.py"),
    *(p for p in (ROOT / "book").rglob("*.py") if "runs" not in p.parts),
]
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_CALLS = {
    "fork",
    "forkpty",
    "kill",
    "killpg",
    "mkfifo",
    "geteuid",
    "getuid",
    "setsid",
    "sysconf",
    "wait",
}


# --- what the sources say


def names_no_encoding(call: ast.Call) -> bool:
    """Whether a call opens a text file in the encoding of the machine."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name not in ("open", "read_text", "write_text") or "encoding" in {k.arg for k in call.keywords}:
        return False
    first = int(isinstance(call.func, ast.Name))  # open(path, mode), but path.open(mode)
    modes = [*call.args[first : first + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    binary = any(isinstance(m, ast.Constant) and "b" in str(m.value) for m in modes)
    low_level = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "os"
    return not low_level and not (name == "open" and binary)


def posix_only(node: ast.AST) -> bool:
    """Whether a line imports or calls what Python has on POSIX alone."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        return bool(POSIX_MODULES & set(names))
    return (
        isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os" and node.attr in POSIX_CALLS
    )


def faults(source: str) -> list[int]:
    """The lines of a source that ask for more than every system has."""
    nodes = list(ast.walk(ast.parse(source)))
    return [n.lineno for n in nodes if posix_only(n) or (isinstance(n, ast.Call) and names_no_encoding(n))]


def test_the_sources_ask_for_what_every_system_has():
    assert len(SOURCES) > 40
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in faults(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("open('a')", True),
        ("open('a', 'rb')", False),
        ("open('a', mode='w')", True),
        ("path.open('a')", True),
        ("path.open('ab')", False),
        ("path.read_text()", True),
        ("path.write_text('b')", True),
        ("path.write_text('b', encoding='utf-8')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("import fcntl", True),
        ("from resource import getrlimit", True),
        ("os.fork()", True),
        ("os.replace(a, b)", False),
    ],
)
def test_the_judge_of_sources(source, wrong):
    assert bool(faults(source)) == wrong


# --- line ends


def press(*arguments: object) -> int:
    """A command of the press, in this process."""
    with mock.patch.object(sys, "argv", ["press", *map(str, arguments)]):
        return press_main()


def test_a_chapter_with_the_line_ends_of_windows_is_the_same_chapter(tmp_path):
    original = chapter_paths(CHAPTERS)[0]
    copy = tmp_path / original.name
    copy.write_bytes(original.read_bytes().replace(b"\n", b"\r\n"))
    assert b"\r\n" in copy.read_bytes()
    ours, theirs = read_chapter(original), read_chapter(copy)
    assert theirs.text == ours.text
    assert [(c.source, c.metadata, c.line) for c in theirs.cells] == [
        (c.source, c.metadata, c.line) for c in ours.cells
    ]
    assert untidy(copy) == "", "a contributor on Windows would be told to reformat every chapter"


def test_the_press_writes_the_line_ends_of_the_repository(tmp_path, monkeypatch):
    write_text = Path.write_text

    def as_windows_does(path, data, encoding=None, errors=None, newline=None):
        return write_text(path, data, encoding, errors, newline or "\r\n")

    monkeypatch.setattr(Path, "write_text", as_windows_does)
    assert press("export", "--into", tmp_path / "as it was", "--through", 1) == 0
    written = list((tmp_path / "as it was").rglob("*.py"))
    assert written and not [path.name for path in written if b"\r" in path.read_bytes()]


def test_a_table_with_the_line_ends_of_windows_is_the_same_table(tmp_path):
    rows, tables = [("a fine film", 1), ("dull, and „long“", 0), ("two\nlines", 1)], []
    for ends in ("\n", "\r\n"):
        path = tmp_path / f"{len(ends)}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator=ends).writerows([("text", "label"), *rows])
        tables.append(read_table(path))
    assert tables[0] == tables[1] == ([text for text, _ in rows], [label for _, label in rows])


# --- paths, and a terminal with another encoding


def test_a_run_lives_in_a_folder_with_spaces_and_letters_of_other_scripts(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "Übung 1 – мой опыт 电影" / "run 1"
    mine = tmp_path / "meine Sätze.csv"
    mine.write_text("text,label\n" + "a schöner film,1\na dull film,0\n" * 16, encoding="utf-8")
    data = ["--data.name", "files", "--data.train", str(mine), "--data.validation", str(mine)]
    monkeypatch.chdir(tmp_path)
    assert main(["train", TOY, *SMALL[2:], *data, "--data.train_size", "null", "--output", str(folder)]) == 0
    assert main(["evaluate", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    assert main(["predict", "--run", str(folder), "a schöner film"]) == 0
    assert capsys.readouterr().err == ""
    assert (folder / "report.md").is_file() and len(read_records(folder, "epoch")) == 2


def test_predict_prints_what_a_terminal_of_windows_lacks():
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "minitransformer", "predict", "好电影", "a café film"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True)
    out = done.stdout.decode("cp1252").splitlines()
    assert done.returncode == 0 and len(out) == 2, done.stderr.decode("cp1252")
    assert r"\u597d\u7535\u5f71" in out[0] and "a café film" in out[1]


# --- files that are open


def open_here(path: Path) -> bool:
    """Whether this process has a file open, or its content mapped into memory."""
    name = str(path.resolve())
    handles = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return name in handles or name in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.fixture
def windows(monkeypatch):
    """Nothing is renamed or deleted while it is open, nor renamed over a file that is open; as on Windows."""

    def refusing(call):
        def called(*paths, **options):
            for path in map(Path, paths):
                if (
                    not options.get("dir_fd")
                    and path.suffix != ".lock"
                    and path.is_file()
                    and open_here(path)
                ):
                    raise PermissionError(13, "The process cannot access the file", str(path))
            return call(*paths, **options)

        return called

    for name in ("rename", "replace", "unlink", "remove"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are listed on Linux")


@linux
def test_the_rules_of_windows_are_played(windows, tmp_path):
    path = tmp_path / "held"
    with path.open("wb"), pytest.raises(PermissionError):
        path.unlink()
    with path.open("wb"), pytest.raises(PermissionError):
        path.rename(tmp_path / "other")
    path.unlink()


@linux
def test_a_run_begins_resumes_and_is_shipped_where_no_open_file_can_go(windows, tmp_path, capsys):
    run = tmp_path / "run"
    train = ["train", TOY, *SMALL, "--output", str(run)]
    assert main(train) == 0
    newest = checkpoint_files(run)[-1]
    held = load_checkpoint(newest)  # as a run that was resumed holds it
    assert held and not open_here(newest)
    (run / "run.json").unlink()  # killed before its end
    assert main([*train, "--training.epochs", "3", "--overwrite"]) == 0
    (run / "run.json").unlink()
    assert main([*train, "--training.epochs", "3", "--resume"]) == 0
    assert main(["evaluate", str(run)]) == 0 and main(["report", str(run)]) == 0
    assert ship(run, tmp_path / "shipped") == tmp_path / "shipped"


@linux
def test_the_press_exports_where_no_open_file_can_go(windows, tmp_path):
    for through in (2, 1):  # the second time files are replaced and deleted
        assert press("export", "--into", tmp_path, "--through", through) == 0
