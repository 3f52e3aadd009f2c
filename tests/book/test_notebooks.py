"""Chapters as notebooks: the tools that people use leave them as they are, and they run outside the checkout.

`NOTEBOOKS=all` runs every exported notebook in an empty folder (`make notebooks`); without it, two short ones run.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import jupytext
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from sphinx.project import Project

import book
from book.press.floors import CHAPTERS, ROOT
from book.press.notebooks import first_cell, for_readers, launch_links, publish
from book.press.read import chapter_paths
from book.press.tidy import tidied

NAMES = [path.name for path in chapter_paths()]
ELSEWHERE = (
    NAMES if os.environ.get("NOTEBOOKS") == "all" else ["workshop_settings.md", "day04_encoder_and_data.md"]
)
PUBLISHED = "https://github.com/owner/name"
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


def chapter_notebook(name: str, repository: str, commit: str) -> nbformat.NotebookNode:
    return for_readers(jupytext.read(CHAPTERS / name, fmt="md:myst"), repository, commit)


def python_without_the_book(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_readers_notebook_is_the_chapter_behind_a_first_cell(name):
    made, chapter = chapter_notebook(name, PUBLISHED, "abc"), jupytext.read(CHAPTERS / name, fmt="md:myst")
    assert made.cells[0].source == first_cell(PUBLISHED, "abc") and made.cells[0].cell_type == "code"
    assert [cell.source for cell in made.cells[1:]] == [cell.source for cell in chapter.cells]
    assert [cell.id for cell in made.cells[:2]] == ["cell-0", "cell-1"], "names that stay the same"
    assert made.metadata == {"kernelspec": chapter.metadata.kernelspec}, "nothing of jupytext"


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_asks_the_book_for_files_outside_its_folder(name):
    found = re.findall(
        r"""["']\.\./(?:book|chapters|configs|pyproject).*""", (CHAPTERS / name).read_text(encoding="utf-8")
    )
    assert found == [], "book.path finds them in a checkout and in a wheel; ../runs is the reader's own"


def test_files_of_the_book_in_a_checkout():
    assert book.path("configs", "toy.yaml") == ROOT / "configs" / "toy.yaml"
    assert book.path("runs/shipped") == ROOT / "book" / "runs" / "shipped"


def test_the_first_cell_installs_what_the_setting_names_or_says_what_to_install():
    assert '"minitransformer[notebooks] @ git+https://github.com/owner/name@abc"' in first_cell(
        PUBLISHED, "abc"
    )
    alone = first_cell("", "abc")
    assert "%pip" not in alone and "abc" not in alone
    subprocess.run([sys.executable, "-c", alone], check=True, cwd=ROOT)  # here the book is found
    said = python_without_the_book(alone).stderr.splitlines()
    assert said[-1] == (
        "ModuleNotFoundError: install the book from your copy of it: pip install 'FOLDER[notebooks]'"
    )
    assert not any("During handling" in line for line in said)


def test_colab_and_binder_are_offered_for_a_named_repository_on_github_only():
    page = "chapters/day01_attention_derived"
    assert launch_links("", page, "abc") == launch_links("https://example.org/owner/name", page, "abc") == []
    assert {text: url for text, _, url in launch_links(PUBLISHED, page, "abc")} == {
        "Colab": "https://colab.research.google.com/github/owner/name/blob/notebooks/"
        "day01_attention_derived.ipynb",
        "Binder": "https://mybinder.org/v2/gh/owner/name/abc"
        "?urlpath=lab/tree/chapters/day01_attention_derived.md",
    }


def test_the_notebooks_become_the_only_commit_of_a_branch(tree, tmp_path_factory):
    remote, built = tmp_path_factory.mktemp("remote"), tmp_path_factory.mktemp("built")
    git(remote, "init", "--quiet", "--bare")
    git(tree, "remote", "add", "origin", str(remote))
    before = git(tree, "status", "--porcelain"), git(tree, "rev-parse", "HEAD")
    (built / "day01_a.md").write_text("a page's source")
    for text in ("first", "second"):
        (built / "day01_a.ipynb").write_text(text)
        publish(built, tree)
    assert git(remote, "ls-tree", "--name-only", "notebooks") == "day01_a.ipynb"
    assert git(remote, "show", "notebooks:day01_a.ipynb") == "second"
    assert git(remote, "rev-list", "--count", "notebooks") == "1"
    assert (git(tree, "status", "--porcelain"), git(tree, "rev-parse", "HEAD")) == before


CONF = """
from book.press.notebooks import offer, write_notebooks

extensions, html_theme = ["sphinx_book_theme", "myst_nb"], "sphinx_book_theme"
source_suffix, nb_execution_mode, exclude_patterns = {".md": "myst-nb"}, "cache", ["_build"]
html_theme_options = {"repository_url": REPOSITORY}


def setup(app):
    app.connect("html-page-context", offer)
    app.connect("build-finished", write_notebooks)
"""
PAGE = """---
file_format: mystnb
kernelspec: {name: python3, display_name: Python 3}
---

# A chapter

```{code-cell}
print(6 * 7)
```
"""


@pytest.mark.parametrize("repository", ["", PUBLISHED])
def test_a_built_page_offers_its_notebook_with_outputs_and_launches_only_if_published(tmp_path, repository):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "conf.py").write_text(CONF.replace("REPOSITORY", repr(repository)))
    (tmp_path / "index.md").write_text("# Book\n\n```{toctree}\nchapters/one\n```\n")
    (tmp_path / "chapters" / "one.md").write_text(PAGE)
    html = tmp_path / "_build" / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(tmp_path), str(html)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page, front = (
        BeautifulSoup((html / name).read_text(), "html.parser")
        for name in ("chapters/one.html", "index.html")
    )
    links = [link["href"] for link in page.select(".dropdown-download-buttons a")]
    assert links == ["../_sources/chapters/one.ipynb", "../_sources/chapters/one.md"]
    made = nbformat.read(html / "chapters" / links[0], as_version=4)
    assert "print(6 * 7)" in made.cells[-1].source and made.cells[-1].outputs[0]["text"] == "42\n"
    assert repository in made.cells[0].source and ("%pip" in made.cells[0].source) == bool(repository)
    launches = [link.text.strip() for link in page.select(".dropdown-launch-buttons a")]
    assert launches == (["Colab", "Binder"] if repository else [])
    assert bool(page.select(".dropdown-launch-buttons")) == bool(repository)
    assert not front.select(".dropdown-launch-buttons") and not front.select("a[href$=ipynb]")


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Path:
    """The book as a repository on this machine, in place of the one on the web."""
    copy = tmp_path_factory.mktemp("published") / "the book"
    litter = shutil.ignore_patterns("__pycache__", "*.ipynb", ".ipynb_checkpoints")
    for name in ("book", "chapters", "configs", "minitransformer"):
        shutil.copytree(ROOT / name, copy / name, ignore=litter)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    git(copy, "init", "--quiet")
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "-m", "published")
    return copy


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory) -> Path:
    """The Python of an environment that has all that is installed here, but not the book."""
    if os.name == "nt":
        pytest.skip("links need a privilege on Windows")
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (seen := folder / "site-packages").mkdir()  # the name by which pickling knows installed modules
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(place).iterdir():
            if path.suffix != ".pth" and not path.name.startswith(("minitransformer", "__editable__")):
                (seen / path.name).symlink_to(path)
    python = folder / "venv" / "bin" / "python"
    (python.parent / "ruff").symlink_to(Path(sysconfig.get_path("scripts"), "ruff"))  # a program, no module
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    inside = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    Path(inside, "dependencies.pth").write_text(f"{seen}\n")
    return python


RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600).execute()
"""


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_exported_notebook_runs_in_an_empty_folder(name, clone, elsewhere, tmp_path):
    notebook = chapter_notebook(name, PUBLISHED, git(clone, "rev-parse", "HEAD"))
    where = "import book, minitransformer; print(book.__file__, minitransformer.__file__)"
    nbformat.write(notebook, path := tmp_path / Path(name).with_suffix(".ipynb"))
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MINITRANSFORMER", "PYTHON", "JUPYTER"))
    }
    bare = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }  # pip reads this 0 as "no isolation": no network
    bare |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_VALUE_0": PUBLISHED,
        "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf",
    }
    bare |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "JUPYTER_DATA_DIR": str(tmp_path / "jupyter")}
    done = subprocess.run(
        [elsewhere, "-c", RUN, path.name], cwd=tmp_path, env=kept | bare, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = subprocess.run(
        [elsewhere, "-c", where], cwd=tmp_path, env=kept, capture_output=True, text=True
    ).stdout
    assert found.count(str(elsewhere.parents[1])) == 2, f"the notebook used the book of {found}"


def test_the_wheel_brings_what_chapters_read_and_a_model_that_answers(clone, elsewhere, tmp_path):
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(clone)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    brought = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = [name for name in git(clone, "ls-files", "-z").split("\0") if "/" in name]
    inside = {name if name.startswith(("book/", "minitransformer/")) else f"book/{name}" for name in there}
    assert brought == inside | {"book/pyproject.toml"}
    site = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel], check=True
    )
    done = subprocess.run(
        [elsewhere, "-m", "minitransformer", "predict", "not a bad film at all"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("positive"), done.stderr


def test_binder_and_the_dev_container_use_what_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    option, path, editable, asked = (ROOT / ".binder/requirements.txt").read_text().split()
    assert (option, editable) == ("--constraint", "--editable") and (ROOT / ".binder" / path).is_file()
    assert set(asked.removeprefix(".[").removesuffix("]").split(",")) <= set(project["optional-dependencies"])
    assert os.access(ROOT / ".binder/postBuild", os.X_OK) or os.name == "nt"
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    make, target = container["postCreateCommand"].split()
    assert make == "make" and target in (ROOT / "Makefile").read_text().split()
