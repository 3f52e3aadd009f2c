"""The frame around the chapters: what `pytest --nbmake` collects and reports, exercises' checks, light imports."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from book.exercises import attempt
from book.press.floors import ROOT

CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
minitransformer:
  day: {day}
---

# Day {day}

```{{code-cell}} ipython3
x = {day}
{line}
```
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A book of two tiny chapters, with the real conftest.py."""
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "chapters").mkdir()
    for day in (1, 2):
        (tmp_path / f"chapters/day0{day}_small.md").write_text(CHAPTER.format(day=day, line="assert x"))
    (tmp_path / "_toc.yml").write_text("- file: chapters/day01_small\n- file: chapters/day02_small\n")
    (tmp_path / "tests").mkdir()
    return tmp_path


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "arguments", [["--nbmake"], ["--nbmake", "chapters"], ["--nbmake", "-n", "2", "chapters"]], ids=" ".join
)
def test_nbmake_runs_every_chapter(project, arguments):
    done = run_pytest(project, *arguments)
    assert "2 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_nbmake_fails_when_a_listed_chapter_is_not_collected(project, workers):
    (project / "chapters/day02_small.md").unlink()
    done = run_pytest(project, "--nbmake", *workers, "chapters")
    assert done.returncode != 0
    assert "collected 1 of 2 chapters; missing: day02_small" in done.stdout + done.stderr


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_nbmake_fails_when_it_collects_nothing(project, workers):
    for path in (project / "chapters").glob("*.md"):
        path.unlink()
    done = run_pytest(project, "--nbmake", *workers, "chapters")
    assert done.returncode != 0
    assert "collected 0 of 2 chapters" in done.stdout + done.stderr


def test_nbmake_runs_workshop_chapters_too(project):
    text = CHAPTER.format(day=1, line="assert x").replace("day:", "before:")
    (project / "chapters/workshop_bench.md").write_text(text)
    (project / "chapters/notes.md").write_text(text)
    done = run_pytest(project, "--nbmake", "chapters")
    assert "3 passed" in done.stdout, done.stdout


def test_nbmake_takes_a_single_chapter(project):
    done = run_pytest(project, "--nbmake", "chapters/day02_small.md")
    assert "1 passed" in done.stdout, done.stdout


def test_a_failing_cell_is_reported_by_its_line_in_the_chapter(project):
    path = project / "chapters/day02_small.md"
    path.write_text(CHAPTER.format(day=2, line="\nx / 0"))
    done = run_pytest(project, "--nbmake", "chapters")
    line = 1 + path.read_text().splitlines().index("x / 0")
    assert f"chapters/day02_small.md:{line}: ZeroDivisionError: division by zero" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_overwrite_is_refused(project):
    before = (project / "chapters/day01_small.md").read_text()
    done = run_pytest(project, "--nbmake", "--overwrite", "chapters")
    assert done.returncode != 0
    assert "--overwrite would write JSON over the chapters" in done.stderr
    assert (project / "chapters/day01_small.md").read_text() == before


def check_two(solution) -> None:
    if solution() != 2:
        raise AssertionError("two is one plus one")


def test_attempt_prints_the_diagnosis_and_the_success(capsys, monkeypatch):
    monkeypatch.delenv("MINITRANSFORMER_BOOK", raising=False)
    attempt(check_two, lambda: 3)
    attempt(check_two, lambda: 2)
    attempt(check_two, lambda: 1 / 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Not yet: two is one plus one"
    assert lines[1] == "Solved."
    assert lines[2] == "Not yet: ZeroDivisionError: division by zero"


def test_a_check_that_passes_on_the_stub_fails_the_book(monkeypatch):
    monkeypatch.setenv("MINITRANSFORMER_BOOK", "1")
    with pytest.raises(RuntimeError, match="check_two passes on the exercise's stub"):
        attempt(check_two, lambda: 2)


def test_importing_the_package_is_light():
    """`import minitransformer` loads neither torch nor datasets; its models load no `datasets`."""
    code = "import sys, minitransformer; assert not {'torch', 'datasets'} & set(sys.modules)\n"
    code += "from minitransformer import TransformerForSequenceClassification; assert 'datasets' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_repository_names_no_machine():
    """Paths of one machine have no place in files that everybody gets."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split(
        "\0"
    )
    if not any(listed):
        pytest.skip("not a git checkout")
    pattern = re.compile(r"/(?:home|Users|root|mnt)/\w+")
    for name in filter(None, listed):
        path = ROOT / name
        if (
            path.suffix in {".md", ".py", ".yml", ".yaml", ".toml", ".txt", ".json", ".jsonl"}
            and path.name != "test_frame.py"
        ):
            assert not (hit := pattern.search(path.read_text(encoding="utf-8"))), f"{name} names {hit[0]}"
