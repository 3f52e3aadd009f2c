"""The press, on small chapters made for the purpose."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from book.press.__main__ import main
from book.press.check import check
from book.press.floors import CHAPTERS, PACKAGE, ROOT, TESTS
from book.press.read import PressError, chapter_paths, read_chapter, read_chapters
from book.press.tangle import Book, read_book, superseded, tangle
from book.press.tidy import FILTER, tidied, tidy
from book.press.write import files_on_disk, write

HEAD = f"""---
jupytext:
  notebook_metadata_filter: {FILTER}
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
minitransformer:
  about:
    {{module}}: About {{module}}.
  day: {{day}}
  module: {{module}}
---

(day{{day:02}})=

# Day {{day}}: a small chapter

```{{{{admonition}}}} Plan for the day
:class: plan

Nothing but this.
```
"""
IMPORTS = "import math"
LINEAR = '''def double(x: float) -> float:
    """Twice x."""
    return 2 * x'''
TEST = """def test_double():
    assert double(3) == 6


test_double()"""


def cell(source: str, tags: str = "", **options: str) -> str:
    lines = [f":tags: [{tags}]"] if tags else []
    lines += [f":{key}: {value}" for key, value in options.items()]
    head = "\n".join(lines) + "\n\n" if lines else ""
    return f"\n```{{code-cell}} ipython3\n{head}{source}\n```\n"


def tasks(day: int, number: int = 3) -> str:
    return "".join(f"\n(t{day}-{i})=\n\n## Task {i}\n" for i in range(1, number + 1))


def write_chapter(folder: Path, body: str, day: int = 1, module: str = "linear", name: str = "small") -> Path:
    folder = folder / "chapters"
    folder.mkdir(exist_ok=True)
    path = folder / f"day{day:02}_{name}.md"
    path.write_text(HEAD.format(day=day, module=module) + body, encoding="utf-8")
    return path


def export(root: Path, through: int | None = None) -> dict[str, str]:
    files = tangle(read_book(read_chapters(root / "chapters", through)))
    write(files, root)
    return files


def sound_chapter(root: Path) -> Path:
    return write_chapter(root, tasks(1) + cell(LINEAR, "export") + cell(TEST, "test"))


def findings(root: Path) -> str:
    export(root)
    return "\n".join(check(root / "chapters", root))


# --- tangling -------------------------------------------------------------------------------------------------------


def test_module_has_header_docstring_imports_all_and_provenance(tmp_path):
    body = (
        cell(IMPORTS)
        + "\n## Area\n"
        + cell("def area(r: float) -> float:\n    return math.pi * r**2", "export")
    )
    write_chapter(tmp_path, body)
    text = export(tmp_path)["minitransformer/linear.py"]
    expected = '''# Generated from chapters/day01_small.md; edit the chapter, not this file.
"""About linear."""

import math

__all__ = ["area"]


# chapters/day01_small.md · Area
def area(r: float) -> float:
    return math.pi * r**2
'''
    assert text == expected


def test_only_used_imports_are_exported_and_merged(tmp_path):
    body = cell("from os import path, sep\nimport json\nfrom os import curdir")
    body += cell("def a():\n    return sep + path.sep + curdir", "export")
    write_chapter(tmp_path, body)
    text = export(tmp_path)["minitransformer/linear.py"]
    assert "from os import curdir, path, sep" in text
    assert "json" not in text


def test_names_of_other_modules_are_imported_from_them(tmp_path):
    write_chapter(tmp_path, cell(LINEAR, "export"))
    write_chapter(tmp_path, cell("def four(x):\n    return double(double(x))", "export"), 2, "attention")
    text = export(tmp_path)["minitransformer/attention.py"]
    assert "from minitransformer.linear import double" in text


def test_a_test_cell_becomes_a_test_file_without_its_calls(tmp_path):
    sound_chapter(tmp_path)
    text = export(tmp_path)["tests/test_linear.py"]
    assert "from minitransformer.linear import double" in text
    assert "def test_double():" in text
    assert "\ntest_double()" not in text


def test_the_exported_package_works(tmp_path):
    sound_chapter(tmp_path)
    export(tmp_path)
    command = [
        sys.executable,
        "-c",
        "import minitransformer as m; assert m.double(2) == 4; assert 'double' in dir(m)",
    ]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(pytest_run, cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def test_last_definition_wins_at_the_place_of_the_first(tmp_path):
    write_chapter(tmp_path, cell("def first():\n    return 1\n\n\ndef second():\n    return 2", "export"))
    write_chapter(tmp_path, cell("def third():\n    return 3\n\n\ndef first():\n    return 11", "export"), 2)
    text = export(tmp_path)["minitransformer/linear.py"]
    assert "return 11" in text and "return 1\n" not in text
    assert text.index("def first") < text.index("def second") < text.index("def third")
    assert "# chapters/day02_small.md" in text
    [[(old, new)]] = superseded(read_book(read_chapters(tmp_path / "chapters"))).values()
    assert (old.chapter.day, new.chapter.day, new.name) == (1, 2, "first")


def test_what_a_newer_definition_needs_at_once_is_moved_before_it(tmp_path):
    write_chapter(tmp_path, cell("class A:\n    pass", "export"))
    write_chapter(tmp_path, cell("class Base:\n    pass\n\n\nclass A(Base):\n    pass", "export"), 2)
    text = export(tmp_path)["minitransformer/linear.py"]
    assert text.index("class Base") < text.index("class A(Base)")
    compile(text, "linear", "exec")


def test_through_gives_the_package_as_of_that_day(tmp_path):
    write_chapter(tmp_path, cell("def first():\n    return 1", "export"))
    write_chapter(tmp_path, cell("def first():\n    return 11", "export"), 2)
    assert "return 1\n" in export(tmp_path, through=1)["minitransformer/linear.py"]
    with pytest.raises(PressError, match=r"--through must be one of the days 1, 2, got 3"):
        export(tmp_path, through=3)


def test_comments_above_a_definition_travel_with_it(tmp_path):
    write_chapter(tmp_path, cell("# why this is so\nLIMIT = 3", "export"))
    assert "# why this is so\nLIMIT = 3" in export(tmp_path)["minitransformer/linear.py"]


def test_two_runs_give_the_same_bytes():
    one, two = (tangle(read_book(read_chapters())) for _ in range(2))
    assert one == two
    assert list(one) == sorted(one)


def test_orphans_are_deleted_and_other_files_stay(tmp_path):
    sound_chapter(tmp_path)
    export(tmp_path)
    (tmp_path / "minitransformer/old.py").write_text("x = 1\n")
    (tmp_path / "tests/test_old.py").write_text("def test(): assert True\n")
    (tmp_path / "tests/book").mkdir()
    (tmp_path / "tests/book/test_by_hand.py").write_text("")
    before = files_on_disk(tmp_path)
    moved = write(tangle(read_book(read_chapters(tmp_path / "chapters"))), tmp_path)
    assert moved == {"minitransformer/old.py": "deleted", "tests/test_old.py": "deleted"}
    assert files_on_disk(tmp_path) == {p: t for p, t in before.items() if "old" not in p}
    assert (tmp_path / "tests/book/test_by_hand.py").exists()


# --- bad input: one sentence, exit code 2, nothing written ----------------------------------------------------------

BAD = {
    "syntax error": (cell("def f(:"), r"day01_small\.md:29: syntax error in a code cell"),
    "unknown module": (
        cell(LINEAR, "export", module="atention"),
        r"unknown module 'atention'; known are linear",
    ),
    "untangled statement": (
        cell("print(1)", "export"),
        r"day01_small\.md:\d+: this cell is tagged export; it may hold only",
    ),
    "stray statement in a test": (
        cell("x = 1\nprint(x)", "test"),
        r"tagged test; it may hold only test_\* functions",
    ),
    "unresolved name": (
        cell("def f():\n    return g()", "export"),
        r"'f' uses 'g', which no chapter exports",
    ),
    "unresolved name in a test": (cell("def test_f():\n    assert y", "test"), r"'test_f' uses 'y'"),
    "module without a use": (cell("x = 1", module="linear"), r"neither export nor test"),
    "star import": (cell("from math import *"), r"star, relative and __future__ imports cannot be exported"),
    "broken options": (
        "\n```{code-cell} ipython3\n:tags: [export\n\nx = 1\n```\n",
        r"cannot be parsed: .*Invalid YAML",
    ),
    "exported twice": (
        cell(LINEAR, "export") + cell(LINEAR, "export", module="attention"),
        r"'double' is exported to two modules, linear and attention",
    ),
    "imported twice": (
        cell("from os import path") + cell("from sys import path"),
        r"'path' is imported twice",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_chapters_are_refused_in_one_sentence_and_nothing_is_written(tmp_path, name):
    sound_chapter(tmp_path)
    export(tmp_path)
    before = files_on_disk(tmp_path)
    body, message = BAD[name]
    write_chapter(tmp_path, body)
    command = [
        sys.executable,
        "-m",
        "book.press",
        "export",
        "--chapters",
        str(tmp_path / "chapters"),
        "--into",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(PressError, match=message):
        export(tmp_path)
    assert files_on_disk(tmp_path) == before


FRONT = {
    "no entry": (
        "minitransformer:\n  about:\n    linear: About linear.\n  day: 1\n  module: linear\n",
        "",
        r"lacks the key 'minitransformer'",
    ),
    "no day": ("  day: 1\n", "", r"lacks the key 'minitransformer: day'"),
    "bad day": ("  day: 1\n", "  day: 13\n", r"'minitransformer: day' 13; it must be a number from 1 to 12"),
    "unknown key": ("  day: 1\n", "  day: 1\n  dy: 2\n", r"unknown key 'minitransformer: dy'"),
    "no module": ("  module: linear\n", "", r"no module for this cell"),
    "unknown module": ("  module: linear\n", "  module: lin\n", r"unknown module 'lin'"),
    "no about": (
        "  about:\n    linear: About linear.\n",
        "",
        r"lacks the key 'minitransformer: about: linear'",
    ),
}


@pytest.mark.parametrize("name", FRONT)
def test_front_matter_is_checked(tmp_path, name):
    path = sound_chapter(tmp_path)
    old, new, message = FRONT[name]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(PressError, match=message):
        export(tmp_path)


def test_two_chapters_claiming_one_name_on_one_day_are_refused(tmp_path):
    write_chapter(tmp_path, cell(LINEAR, "export"), 1, name="one")
    write_chapter(tmp_path, cell(LINEAR, "export"), 1, name="two")
    with pytest.raises(
        PressError, match=r"day01_one\.md and chapters/day01_two\.md both define 'double' on day 1"
    ):
        export(tmp_path)


def test_an_empty_folder_of_chapters_is_refused(tmp_path):
    with pytest.raises(PressError, match=r"no chapter \(day\*\.md\)"):
        read_chapters(tmp_path)


# --- check ----------------------------------------------------------------------------------------------------------


def test_a_sound_chapter_has_no_findings(tmp_path):
    body = (
        "\n(t1-1)=\n\n## Task 1\n"
        + cell(LINEAR, "export")
        + cell(TEST, "test")
        + tasks(1).split("## Task 1\n")[1]
    )
    write_chapter(tmp_path, body)
    assert findings(tmp_path) == ""


def test_check_finds_changed_missing_and_stray_files_with_a_diff(tmp_path):
    sound_chapter(tmp_path)
    export(tmp_path)
    linear = tmp_path / "minitransformer/linear.py"
    linear.write_text(linear.read_text().replace("    return 2 * x\n", ""))
    (tmp_path / "minitransformer/stray.py").write_text("")
    (tmp_path / "tests/test_linear.py").unlink()
    text = "\n".join(check(tmp_path / "chapters", tmp_path))
    assert "minitransformer/linear.py: differs from the chapters" in text
    assert "+    return 2 * x" in text
    assert "minitransformer/stray.py: no chapter exports this file" in text
    assert "tests/test_linear.py: differs from the chapters" in text


STUB = "def triple(x):\n    raise NotImplementedError"
CHECK = "def check_triple(solution):\n    assert solution(2) == 6\n\n\nattempt(check_triple, triple)"
SOLUTION = "def triple(x):\n    return 3 * x\n\n\ncheck_triple(triple)"
EXERCISE = "\n```{exercise} Triple\n:label: ex-1-1\n\nWrite it.\n```\n"
START, END = "\n```{solution-start} ex-1-1\n:class: dropdown\n```\n", "\n```{solution-end}\n\n```\n"
FIGURE = """
```{code-cell} ipython3
---
mystnb:
  figure:
    caption: A line.
---
plt.plot([1, 2])
plt.show()
```
"""

FAULTS = {
    "no test": (cell(LINEAR, "export"), "double is exported, but no test after it in section 'Task 3'"),
    "test in another section": (
        cell(LINEAR, "export") + "\n## Elsewhere\n" + cell(TEST, "test"),
        "double is exported, but no test after it in section 'Task 3'",
    ),
    "no docstring": (cell("def f():\n    return 1", "export"), "f has no docstring"),
    "long cell": (cell("\n".join(f"x{i} = {i}" for i in range(41))), "the cell has 41 lines, more than 40"),
    "bare comparison": (cell("x = 1\nx == 1"), "`x == 1` compares but cannot fail; write `assert`"),
    "printed comparison": (cell("print(torch.allclose(a, b))"), "compares but cannot fail"),
    "test without assert": (
        cell("def test_nothing():\n    print(1)\n\n\ntest_nothing()", "test"),
        "test_nothing asserts nothing",
    ),
    "test not run": (
        cell("def test_one():\n    assert 1 + 1 == 2", "test"),
        "test_one is not run in its cell",
    ),
    "typed percentage": ("\nIt reaches 81.5 % here.\n", "the number '81.5 %' is typed"),
    "typed loss": ("\nThe loss fell to 0.0123 at last.\n", "the number 'loss fell to 0.0123' is typed"),
    "typed speed": ("\nIt does 9000 tokens/s on a CPU.\n", "the number '9000 tokens/s' is typed"),
    "figure without alt": (FIGURE, "'mystnb: image: alt'"),
    "exercise without check": (
        EXERCISE + cell(STUB, "stub"),
        "exercise ex-1-1 needs a cell tagged stub, then one tagged check",
    ),
    "exercise without solution": (
        EXERCISE + cell(STUB, "stub") + cell(CHECK, "check"),
        "needs a cell tagged solution",
    ),
    "solution without its check": (
        EXERCISE + cell(STUB, "stub") + cell(CHECK, "check") + START + cell(STUB, "solution") + END,
        "needs a cell tagged solution that ends by calling check_triple(…)",
    ),
    "solution of nothing": (
        START + cell(SOLUTION, "solution") + END,
        "a solution for the unknown exercise 'ex-1-1'",
    ),
    "upward import": (
        cell("def f():\n    return g()", "export") + cell("def g():\n    return 1", "export", module="train"),
        "minitransformer.linear uses g of minitransformer.train, a floor above it",
    ),
    "book in the package": (
        cell("from book.figures import box") + cell("def f():\n    return box", "export"),
        "f uses box from the book's tools",
    ),
    "untidy": (cell("x=1"), "not in canonical form; run `python -m book.press format`"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_rule_finds_its_fault(tmp_path, name):
    body, message = FAULTS[name]
    about = "    linear: About linear.\n"
    path = write_chapter(tmp_path, tasks(1) + body)
    path.write_text(path.read_text().replace(about, about + "    train: About train.\n"))
    text = findings(tmp_path)
    assert message in text
    assert "day01_small.md:" in text


def test_a_complete_exercise_and_an_exempt_number_pass(tmp_path):
    exercise = EXERCISE + cell(STUB, "stub") + cell(CHECK, "check") + START + cell(SOLUTION, "solution") + END
    typed = "\n% typed: the literature's figure\nIt reached 93.5 % there.\n"
    write_chapter(tmp_path, tasks(1) + cell("from book.exercises import attempt") + exercise + typed)
    assert findings(tmp_path) == ""


def test_missing_tasks_plan_and_name_are_found(tmp_path):
    path = sound_chapter(tmp_path)
    path.write_text(path.read_text().replace("(t1-2)=", "").replace(":class: plan\n", ""))
    path.rename(path.with_name("day07_small.md"))
    text = "\n".join(check(tmp_path / "chapters", tmp_path))
    assert "no heading labelled (t1-2)= for task T1.2 of the plan" in text
    assert "no plan box" in text
    assert "must be named day01_….md" in text


def test_the_table_of_contents_must_list_the_chapters(tmp_path):
    sound_chapter(tmp_path)
    (tmp_path / "_toc.yml").write_text("chapters:\n  - file: chapters/day02_other\n")
    text = findings(tmp_path)
    assert "_toc.yml: the chapter chapters/day01_small.md is not listed" in text
    assert "_toc.yml: lists chapters/day02_other, which does not exist" in text


# --- the real book --------------------------------------------------------------------------------------------------


def test_the_book_itself_is_green():
    assert check(CHAPTERS, ROOT) == []


@pytest.mark.parametrize("path", chapter_paths(), ids=lambda path: path.stem)
def test_chapters_round_trip_through_jupytext_unchanged(path):
    assert tidied(path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", chapter_paths(), ids=lambda path: path.stem)
def test_cells_know_their_line(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for one in read_chapter(path).code:
        source = one.source.splitlines()
        assert lines[one.line - 1 : one.line - 1 + len(source)] == source


def test_format_writes_only_what_changes(tmp_path):
    path = write_chapter(tmp_path, cell("x=1"))
    assert tidy([path]) == ["chapters/day01_small.md"]
    assert "x = 1" in path.read_text()
    assert tidy([path]) == []


@cache
def mentioned(source: str) -> frozenset[str]:
    """The modules that a piece of code names in full, as a patch does in a string."""
    return frozenset(re.findall(rf"\b{PACKAGE}\.(\w+)", source))


def reached(book: Book, homes: dict[str, str], module: str, test: str) -> frozenset:
    """All that a test can reach by names: itself, definitions of the package with their text, and imports."""
    found: set = set()
    waiting = [("", book.tests[module], test)]  # "" stands for the file of tests

    def whole(modules: Iterable[str]) -> None:
        for each in book.modules.keys() & modules:
            waiting.extend((each, book.modules[each], name) for name in book.modules[each].definitions)

    while waiting:
        home, unit, name = waiting.pop()
        definition = unit.definitions[name]
        if (home, name, definition.source) in found:
            continue
        found.add((home, name, definition.source))
        whole(mentioned(definition.source))
        for used in definition.free:
            item = book.imports[definition.chapter.path].get(used)
            if used in unit.definitions:
                waiting.append((home, unit, used))
            elif item is None or (item.module.startswith(PACKAGE) and item.name in homes):
                origin = item.name if item and item.name else used
                waiting.append((homes[origin], book.modules[homes[origin]], origin))
            else:
                found.add(item.statement)
                if item.statement == f"import {PACKAGE}":
                    whole(book.modules)
                elif item.module.startswith(PACKAGE):
                    whole([item.name or item.module.split(".")[1]])
    return frozenset(found)


def tests_of_days(books: dict[int, Book]) -> dict[int, list[str]]:
    """For each day the tests that no later day runs on the same code; those of the last are all its tests."""
    later: set[frozenset] = set()
    chosen = {}
    for day in sorted(books, reverse=True):
        homes = books[day].homes
        tests = {
            (module, name): reached(books[day], homes, module, name)
            for module, unit in books[day].tests.items()
            for name in unit.definitions
            if name.startswith("test_")
        }
        new = [key for key, code in tests.items() if code not in later]
        chosen[day] = [f"{TESTS}/test_{module}.py::{name}" for module, name in new]
        later |= set(tests.values())
    return chosen


@cache
def tests_of_the_book() -> dict[int, list[str]]:
    days = [chapter.day for chapter in read_chapters()]
    return tests_of_days({day: read_book(read_chapters(through=day)) for day in days})


def test_as_of_a_day_those_tests_run_whose_code_later_days_change(tmp_path):
    quadruple = "def quadruple(x: float) -> float:\n    return double(double(x))"
    other = "def test_other():\n    assert 1 + 1 == 2"
    calls = "def test_quadruple():\n    assert quadruple(1) == 4"
    whole = "def test_whole():\n    assert minitransformer.double(2) == 4"
    patched = 'def test_patched():\n    with patch("minitransformer.linear.double"):\n        assert True'
    imports = cell("from unittest.mock import patch\n\nimport minitransformer")
    body = imports + cell(LINEAR, "export") + cell(quadruple, "export")
    write_chapter(tmp_path, body + "".join(cell(test, "test") for test in (other, calls, whole, patched)))
    write_chapter(tmp_path, cell("def more():\n    return 1", "export", module="attention"), 2, "attention")
    write_chapter(tmp_path, cell(LINEAR.replace("2 * x", "x + x"), "export"), 3)
    books = {day: read_book(read_chapters(tmp_path / "chapters", day)) for day in (1, 2, 3)}
    chosen = {day: [test.split("::")[1] for test in tests] for day, tests in tests_of_days(books).items()}
    everything = ["test_other", "test_quadruple", "test_whole", "test_patched"]
    assert chosen == {1: ["test_whole"], 2: everything[1:], 3: everything}


AS_OF_A_DAY = """
import importlib, pathlib, sys
import pytest
for path in sorted(pathlib.Path("minitransformer").glob("*.py")):
    print(importlib.import_module(f"minitransformer.{path.stem}").__file__)
tests = sys.argv[1:]
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]) if tests else 0)
"""


@pytest.mark.parametrize("day", [chapter.day for chapter in read_chapters()])
def test_the_package_of_every_day_imports_and_passes_its_tests(tmp_path, monkeypatch, day):
    monkeypatch.setattr(sys, "argv", ["press", "export", "--through", str(day), "--into", str(tmp_path)])
    assert main() == 0
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    (tmp_path / "conftest.py").write_text("")
    last = max(tests_of_the_book())
    tests = (
        [] if day == last else tests_of_the_book()[day]
    )  # the last is the package, whose tests run beside this one
    command = [sys.executable, "-c", AS_OF_A_DAY, *tests]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    modules = len(list(tmp_path.glob("minitransformer/*.py")))
    assert all(line.startswith(f"{tmp_path}") for line in done.stdout.splitlines()[:modules])
    assert not tests or f"{len(tests)} passed" in done.stdout
