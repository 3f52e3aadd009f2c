"""The press, on small chapters made for the purpose."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from book.press.__main__ import main
from book.press.check import check
from book.press.floors import CHAPTERS, ROOT
from book.press.read import PressError, chapter_paths, read_chapter, read_chapters
from book.press.sphinx_extension import difference
from book.press.tangle import read_book, superseded, tangle
from book.press.tidy import FILTER, tidy, untidy
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


def write_workshop(folder: Path, body: str, before: int, module: str, name: str = "bench") -> Path:
    """A workshop chapter: no plan, no tasks, and a title of its own."""
    text = HEAD.format(day=before, module=module).split("\n(day")[0].replace("  day: ", "  before: ")
    path = folder / "chapters" / f"workshop_{name}.md"
    path.parent.mkdir(exist_ok=True)
    title = f"\n(workshop-{name})=\n\n# The {name}\n\n## Settings\n"
    path.write_text(text + title + body, encoding="utf-8")
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


def test_the_front_door_leads_to_folders_and_modules():
    code = "import minitransformer as m; print(m.experiment.__name__, m.evaluate.__name__, m.Linear.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["minitransformer.experiment", "minitransformer.evaluate", "Linear"]


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


# --- workshop chapters ----------------------------------------------------------------------------------------------

SETTING = '''def setting() -> float:
    """Twice three."""
    return double(3)'''
SETTING_TEST = "def test_setting():\n    assert setting() == 6\n\n\ntest_setting()"


def workshop_book(root: Path) -> None:
    """Two days, and between them a workshop chapter with a module in the subpackage."""
    write_chapter(root, "\n(t1-1)=\n\n## Task 1\n" + cell(LINEAR, "export") + cell(TEST, "test"))
    write_chapter(root, cell("def last():\n    return setting()", "export"), 2, "cli")
    write_workshop(
        root, cell(SETTING, "export") + cell(SETTING_TEST, "test"), 2, "experiment.settings", "settings"
    )


def test_workshop_chapters_stand_before_their_day_in_name_order(tmp_path):
    workshop_book(tmp_path)
    write_workshop(tmp_path, cell("a = 1"), 2, "experiment.folder", "folder")
    order = [chapter.path.stem for chapter in read_chapters(tmp_path / "chapters")]
    assert order == ["day01_small", "workshop_folder", "workshop_settings", "day02_small"]
    for through, number in ((1, 1), (2, 4)):
        assert len(read_chapters(tmp_path / "chapters", through)) == number
    write_workshop(tmp_path, "", 3, "experiment.fit", "late")
    with pytest.raises(PressError, match=r"--through must be one of the days 1, 2, got 3"):
        read_chapters(tmp_path / "chapters", 3)


def test_a_module_of_the_subpackage_is_exported_imported_and_tested(tmp_path):
    workshop_book(tmp_path)
    files = export(tmp_path)
    assert "from minitransformer.linear import double" in files["minitransformer/experiment/settings.py"]
    assert "from minitransformer.experiment.settings import setting" in files["minitransformer/cli.py"]
    assert "import setting" in files["tests/test_experiment_settings.py"]
    assert files["minitransformer/experiment/__init__.py"].count("\n") == 2  # what it is, nothing else
    assert not any(
        "experiment" in path for path in tangle(read_book(read_chapters(tmp_path / "chapters", 1)))
    )
    code = "from minitransformer import last, setting; assert last() == setting() == 6"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    assert "2 passed" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout


def test_what_days_alone_must_have_a_workshop_chapter_need_not(tmp_path):
    workshop_book(tmp_path)
    assert "workshop_settings.md" not in findings(tmp_path)
    path = tmp_path / "chapters/workshop_settings.md"
    text = path.read_text()
    path.write_text(text.replace("(workshop-settings)=", ""))
    assert "no heading labelled (workshop-settings)= for the chapter itself" in findings(tmp_path)
    path.write_text(
        text + cell("\n".join(f"x{i} = {i}" for i in range(41))) + cell("def f():\n    return 1", "export")
    )
    assert "the cell has 41 lines" in findings(tmp_path)
    assert "f is exported, but no test after it" in findings(tmp_path)


def test_a_day_may_supersede_its_workshop_chapter_but_two_of_these_may_not_claim_one_name(tmp_path):
    workshop_book(tmp_path)
    write_chapter(
        tmp_path, cell("def setting():\n    return 7", "export", module="experiment.settings"), 2, "cli"
    )
    assert "return 7" in export(tmp_path)["minitransformer/experiment/settings.py"]
    [[(old, new)]] = superseded(read_book(read_chapters(tmp_path / "chapters"))).values()
    assert "Workshop: The settings → Day 2" in difference(old, new)
    write_workshop(tmp_path, cell(SETTING, "export"), 2, "experiment.settings", "twice")
    with pytest.raises(PressError, match=r"both define 'setting' before day 2"):
        export(tmp_path)


def test_the_front_matter_of_a_workshop_chapter_is_checked(tmp_path):
    workshop_book(tmp_path)
    path = tmp_path / "chapters/workshop_settings.md"
    text = path.read_text()
    for new, message in (
        ("", r"lacks the key 'minitransformer: before'"),
        ("  before: 2\n  day: 2\n", r"has the key 'minitransformer: day'; this chapter has 'before'"),
        ("  before: 13\n", r"'minitransformer: before' 13; it must be a number from 1 to 12"),
    ):
        path.write_text(text.replace("  before: 2\n", new))
        with pytest.raises(PressError, match=message):
            export(tmp_path)


# --- the front door -------------------------------------------------------------------------------------------------


def test_the_front_door_loads_no_more_than_the_modules_up_to_the_one_asked_for(tmp_path):
    workshop_book(tmp_path)
    export(tmp_path)
    code = """
import sys, minitransformer as m
loaded = lambda: {name for name in sys.modules if name.startswith("minitransformer.")}
assert not loaded()
from minitransformer import double
assert loaded() == {"minitransformer.linear"}
from minitransformer import cli
assert cli.__name__ == "minitransformer.cli" and not hasattr(m, "_private")
assert dir(m) == m.__all__ == ["double", "last", "setting"]
try:
    from minitransformer import nothing
except ImportError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_types_are_known_at_the_front_door(tmp_path):
    workshop_book(tmp_path)
    export(tmp_path)
    (tmp_path / "user.py").write_text("from minitransformer import double, nothing\n\ndouble('a')\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert 'has no attribute "nothing"' in done and 'incompatible type "str"' in done
    assert "Found 2 errors" in done


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
    "before in a day": ("  day: 1\n", "  before: 1\n  day: 1\n", r"has the key 'minitransformer: before'"),
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
    with pytest.raises(PressError, match=r"no chapter \(day\*\.md, workshop_\*\.md\)"):
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
    "wide line": (cell(f"x = {'a' * 85!r}"), "a line has 91 columns, more than 88"),
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
    assert not untidy(path)


@pytest.mark.parametrize("path", chapter_paths(), ids=lambda path: path.stem)
def test_cells_know_their_line(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for one in read_chapter(path).code:
        source = one.source.splitlines()
        assert lines[one.line - 1 : one.line - 1 + len(source)] == source


def test_code_fits_the_page(tmp_path):
    line = "total = one_long_name + another_long_name + a_third_long_name + a_fourth_long_name + more"
    path = write_chapter(tmp_path, cell(line))
    assert len(line) > 88 and untidy(path)
    tidy([path])
    assert max(map(len, read_chapter(path).code[0].source.splitlines())) <= 88
    assert not untidy(path)


def test_format_writes_only_what_changes(tmp_path):
    path = write_chapter(tmp_path, cell("x=1"))
    assert tidy([path]) == ["chapters/day01_small.md"]
    assert "x = 1" in path.read_text()
    assert tidy([path]) == []


@pytest.mark.parametrize("day", [chapter.day for chapter in read_chapters() if not chapter.workshop])
def test_the_package_of_every_day_imports_and_passes_its_tests(tmp_path, monkeypatch, day):
    monkeypatch.setattr(sys, "argv", ["press", "export", "--through", str(day), "--into", str(tmp_path)])
    assert main() == 0
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    (tmp_path / "conftest.py").write_text("")
    mine, final = (
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("minitransformer/**/*.py")}
        for folder in (tmp_path, ROOT)
    )
    if mine != final:  # else it is the package itself, whose tests run beside this one
        pytest_run = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "tests",
        ]
        done = subprocess.run(pytest_run, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
    assert (
        f"{tmp_path}"
        in subprocess.run(
            [sys.executable, "-c", "import minitransformer; print(minitransformer.__file__)"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        ).stdout
    )
