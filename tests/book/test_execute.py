"""The pages' cells, run side by side before Sphinx reads the pages."""

import subprocess
import sys
from pathlib import Path

from book.press.floors import ROOT

CONF = """
from book.press.execute import execute_ahead

extensions, source_suffix, nb_execution_mode = ["myst_nb"], {".md": "myst-nb"}, "cache"
exclude_patterns = ["_build", "jupyter_execute", ".jupyter_cache"]


def setup(app):
    app.connect("env-before-read-docs", execute_ahead)
"""
PAGE = """---
file_format: mystnb
kernelspec: {{name: python3}}
---

# Page {name}

```{{code-cell}}
with open("{name}.log", "a") as file:
    file.write("run\\n")
{last}
```
"""


def build(folder: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(folder),
        str(folder / "_build"),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_pages_run_once_ahead_and_a_failing_one_still_fails_the_build(tmp_path):
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "index.md").write_text("# Book\n\n```{toctree}\ngood\nbad\n```\n")
    (tmp_path / "good.md").write_text(PAGE.format(name="good", last="print(6 * 7)"))
    (tmp_path / "bad.md").write_text(PAGE.format(name="bad", last="1 / 0"))
    done = build(tmp_path)
    assert done.returncode != 0 and "bad.md" in done.stderr and "Executing notebook failed" in done.stderr, (
        done.stderr
    )
    assert "good.md run in" in done.stdout and "bad.md failed" in done.stdout, done.stdout
    assert (tmp_path / "good.log").read_text() == "run\n", "Sphinx found the outputs in the cache"
    assert (tmp_path / "bad.log").read_text() == "run\n" * 2, "Sphinx ran what had failed again, to report it"
    assert "42" in (tmp_path / "_build/good.html").read_text()
    (tmp_path / "bad.md").write_text(PAGE.format(name="bad", last="print('mended')"))
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "good.log").read_text() == "run\n", "what has not changed is not run again"
