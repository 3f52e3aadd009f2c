"""Chapters as notebooks: opened, saved and converted by the tools that people use, they stay as they are."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from sphinx.project import Project

from book.press.floors import CHAPTERS, ROOT
from book.press.read import chapter_paths
from book.press.tidy import tidied

NAMES = [path.name for path in chapter_paths()]
Ask = Callable[..., dict]


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=reader", "-c", "user.email=reader@example.org", "-c", "core.autocrlf=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a reader has cloned: the chapters and jupytext's settings, in a repository without changes."""
    shutil.copytree(CHAPTERS, tmp_path / "chapters", ignore=shutil.ignore_patterns("*.ipynb", ".*"))
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "as cloned")
    return tmp_path


@contextmanager
def server(root: Path, home: Path) -> Iterator[Ask]:
    """A real Jupyter server whose root is a folder; yields a function that asks its contents API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "ip": "127.0.0.1",
        "port": port,
        "port_retries": 0,
        "root_dir": root,
        "allow_root": True,
        "open_browser": False,
    }
    options = [f"--ServerApp.{name}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        "-m",
        "jupyter_server",
        *options,
        "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True",
    ]
    places = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    extension = ["--ServerApp.jpserver_extensions={'jupytext': True}"]
    log = home / "server.log"

    def ask(path: str, content: dict | None = None) -> dict:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/{path}",
            body,
            {"Content-Type": "application/json"},
            method="PUT" if body else "GET",
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *extension], stdout=output, stderr=output, env=os.environ | places, cwd=root
        )
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()
                try:
                    ask("status")
                    break
                except OSError:
                    time.sleep(0.25)
            yield ask
        finally:
            process.terminate()
            process.wait()


def as_after_work(notebook: dict) -> dict:
    """What JupyterLab may have added when cells were run: outputs, counts, ids, its own and the kernel's metadata."""
    metadata = notebook["metadata"]
    metadata["kernelspec"] = {**metadata["kernelspec"], "display_name": "Python 3 (ipykernel)"}
    metadata["language_info"] = {"name": "python", "version": "3.13.1", "file_extension": ".py"}
    metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
        cell["metadata"]["trusted"] = True
        if cell["cell_type"] == "code":
            cell["execution_count"] = number
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "done\n"}]
            cell["metadata"]["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    return notebook


@pytest.mark.parametrize("below", ["", "chapters"], ids=["from the project's root", "from chapters/"])
def test_opening_and_saving_a_chapter_changes_nothing(tree, tmp_path_factory, below):
    folder = "" if below else "chapters/"
    with server(tree / below, tmp_path_factory.mktemp("jupyter")) as ask:
        for name in NAMES:
            opened = ask(f"contents/{folder}{name}?type=notebook&content=1")
            assert opened["type"] == "notebook" and len(opened["content"]["cells"]) > 10, name
            ask(
                f"contents/{folder}{name}",
                {"type": "notebook", "format": "json", "content": opened["content"]},
            )
        assert git(tree, "status", "--porcelain") == "", git(tree, "diff")
        for name in NAMES[::4]:
            content = as_after_work(ask(f"contents/{folder}{name}?type=notebook&content=1")["content"])
            ask(f"contents/{folder}{name}", {"type": "notebook", "format": "json", "content": content})
    changed = re.findall(r"^[-+](?![-+]).*", git(tree, "diff", "--unified=0"), re.M)
    assert all("display_name" in line for line in changed), changed
    assert git(tree, "status", "--porcelain", "--untracked-files=all").count("??") == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_survives_the_way_to_a_notebook_and_back(name, tmp_path):
    text = (CHAPTERS / name).read_text(encoding="utf-8")
    copy, notebook = tmp_path / name, tmp_path / Path(name).with_suffix(".ipynb")
    nbformat.write(jupytext.reads(text, fmt="md:myst"), notebook)
    jupytext.write(nbformat.read(notebook, as_version=4), copy, fmt="md:myst")
    assert copy.read_text(encoding="utf-8") == text


def test_the_name_of_another_kernel_is_put_right_by_the_press(tmp_path):
    text = (CHAPTERS / NAMES[0]).read_text(encoding="utf-8")
    (copy := tmp_path / NAMES[0]).write_text(
        text.replace("display_name: Python 3", "display_name: .venv (3.13)"), encoding="utf-8"
    )
    assert copy.read_text(encoding="utf-8") != text
    assert tidied(copy) == text


def test_a_notebook_beside_its_chapter_is_no_page_of_the_book(tmp_path):
    patterns = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["exclude_patterns"]
    (tmp_path / "chapters").mkdir()
    for name in ("a.md", "a.ipynb", "b.md", "Untitled.ipynb"):
        (tmp_path / "chapters" / name).touch()
    project = Project(str(tmp_path), {".md": "md", ".ipynb": "nb"})
    assert project.discover(patterns) == {"chapters/a", "chapters/b"}
    assert project.doc2path("chapters/a", absolute=False) == "chapters/a.md"


def test_a_notebook_beside_its_chapter_is_not_run(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "chapters").mkdir()
    for name in ("day01_a.ipynb", "Untitled.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / "chapters" / name)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--collect-only",
        "-q",
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert "ipynb" not in done.stdout and "no tests collected" in done.stdout, done.stdout + done.stderr
