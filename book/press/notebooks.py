"""Chapters as notebooks for readers: with their outputs, and a first cell that finds or fetches the book.

One setting names where the book is published: `repository_url` in `_config.yml`. With it, the first cell installs
the book from there, at the commit that the pages were built from, and the pages offer Colab and Binder.
Colab opens notebooks from a branch only, so `python -m book.press.notebooks` pushes those of the built book to one.
"""

import os
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from myst_nb.sphinx_ import SphinxEnvType
from nbformat import NotebookNode
from sphinx.application import Sphinx

from book.press.execute import notebooks
from book.press.floors import PACKAGE, ROOT

BRANCH = "notebooks"
BUILT = ROOT / "_build" / "html" / "_sources" / "chapters"


def pinned() -> str:
    """The commit that is checked out; without git, the tag of the package's version."""
    try:
        return git(ROOT, "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return f"v{version(PACKAGE)}"


def git(folder: Path, *arguments: str, **variables: str) -> str:
    """What a git command says, run in a folder."""
    command = ["git", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def first_cell(repository: str, commit: str) -> str:
    """Find the book, or fetch it; where nobody has said where it is, say in one sentence what to install."""
    fetch = (
        f'%pip install --quiet "{PACKAGE}[notebooks] @ git+{repository}@{commit}"\n    import book.play, {PACKAGE}'
        if repository
        else "raise ModuleNotFoundError(\"install the book from your copy of it: pip install 'FOLDER[notebooks]'\") from None"
    )
    return (
        "# The book's package: found where it is installed"
        f"{', else fetched' if repository else ''}.\n"
        f"try:\n    import book.play, {PACKAGE}\nexcept ModuleNotFoundError:\n    {fetch}"
    )


def for_readers(notebook: NotebookNode, repository: str, commit: str) -> NotebookNode:
    """The notebook with the first cell, names of cells that stay the same, and nothing of the tools that made it."""
    cells = [nbformat.v4.new_code_cell(first_cell(repository, commit)), *notebook.cells]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kept = {
        key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata
    }
    made = nbformat.v4.new_notebook(cells=cells, metadata=kept)
    nbformat.validate(made)
    return made


def has_notebook(name: str) -> bool:
    return name.startswith("chapters/")


def write_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Each chapter's notebook beside its source, where the theme's download menu looks for it."""
    if error is not None or app.builder.name != "html":
        return
    env: SphinxEnvType = app.env
    settings, repository, commit = env.mystnb_config, repository_url(app), pinned()
    names = sorted(filter(has_notebook, env.found_docs))
    for path, notebook in notebooks(env, names).items():
        if settings.execution_mode == "cache":
            _, notebook = get_cache(settings.execution_cache_path).merge_match_into_notebook(notebook)
        target = Path(app.outdir, "_sources", path.relative_to(app.srcdir)).with_suffix(".ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(for_readers(notebook, repository, commit), target)


def repository_url(app: Sphinx) -> str:
    return (app.config.html_theme_options.get("repository_url") or "").rstrip("/")


def offer(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Tell the theme of the notebook; add the launch buttons if the repository has a name on GitHub."""
    if not has_notebook(name):
        return
    context["ipynb_source"] = f"{name}.ipynb"
    if links := launch_links(repository_url(app), name, pinned()):
        buttons = [
            {"type": "link", "text": text, "url": url, "icon": icon, "tooltip": f"Run this chapter on {text}"}
            for text, icon, url in links
        ]
        group = {"type": "group", "buttons": buttons, "icon": "fas fa-rocket", "label": "launch-buttons"}
        context["header_buttons"].append(group | {"tooltip": "Run this chapter elsewhere"})


def launch_links(repository: str, name: str, commit: str) -> list[tuple[str, str, str]]:
    """Text, icon and address of each place that runs a chapter; none for a repository that is not on GitHub."""
    owner_and_name = repository.removeprefix("https://github.com/")
    if not repository or owner_and_name == repository:
        return []
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/{BRANCH}/{Path(name).name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{owner_and_name}/{commit}?urlpath=lab/tree/{name}.md"
    return [
        ("Colab", "_static/images/logo_colab.png", colab),
        ("Binder", "_static/images/logo_binder.svg", binder),
    ]


def publish(notebooks: Path = BUILT, repository: Path = ROOT) -> None:
    """Push the built notebooks to `origin`, as the only commit of the branch from which Colab opens them."""
    who = {
        f"GIT_{role}_{part}": "notebooks" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    with tempfile.TemporaryDirectory() as folder:
        there = {
            "GIT_DIR": git(repository, "rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": str(notebooks.resolve()),
            "GIT_INDEX_FILE": str(Path(folder, "index")),
        }
        git(notebooks, "add", "--force", "--", "*.ipynb", **there)
        tree = git(notebooks, "write-tree", **there)
        message = f"Notebooks of {git(repository, 'rev-parse', 'HEAD')}"
        commit = git(notebooks, "commit-tree", tree, "-m", message, **there, **who)
        git(repository, "push", "--force", "origin", f"{commit}:refs/heads/{BRANCH}")


if __name__ == "__main__":
    publish()
