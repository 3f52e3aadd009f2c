"""`python -m book.play preview NAME`: one widget on a page of its own, without building the book."""

import argparse
import importlib.util
import re
from html import escape
from pathlib import Path
from types import ModuleType

from book.play import script_names, start_script, weights
from book.press.floors import ROOT

FOLDER, ORACLES = ROOT / "book" / "play", ROOT / "tests" / "book" / "play_oracles"
PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ --pst-color-text-base: #222832; --pst-color-background: #ffffff; --pst-color-surface: #f3f4f5;
  --pst-color-border: #d1d5da; --pst-color-text-muted: #48566b; }}
html[data-theme="dark"] {{ --pst-color-text-base: #ced6dd; --pst-color-background: #14181e;
  --pst-color-surface: #29313d; --pst-color-border: #48566b; --pst-color-text-muted: #9ca4af; }}
body {{ margin: 1rem auto; padding: 0 .75rem; max-width: 46rem; font-family: system-ui, sans-serif; line-height: 1.5;
  color: var(--pst-color-text-base); background: var(--pst-color-background); }}
figure.play {{ margin-inline: 0; }}
* {{ box-sizing: border-box; }}
{style}
</style>
<script>if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";</script>
</head><body><main><h1>{name}</h1>
{start}
<figure class="play" data-play="{name}"><figcaption><p>{caption}</p></figcaption></figure>
</main>
{scripts}
</body></html>
"""


def oracle(name: str) -> ModuleType:
    """What a widget starts from and what it must say: `tests/book/play_oracles/NAME.py`, with dashes as underscores."""
    path = ORACLES / f"{name.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(f"play_oracle_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path.relative_to(ROOT)} is missing: it says what the widget starts from")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def caption(name: str) -> str:
    """The caption in the book's text, or a reminder to write one."""
    for page in [*(ROOT / "chapters").glob("*.md"), *(ROOT / "book").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        if found := re.search(rf"^```\{{play\}} {name}\n((?::.*\n)*)([\s\S]*?)^```", text, re.M):
            return escape(" ".join(found[2].split()))
    return "Before you move it: (the caption in the chapter asks for a prediction)"


def preview(name: str, folder: Path = ROOT / "_build" / "play") -> Path:
    """Write a page with one widget, everything inlined; open it from the disk."""
    sources = [(FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in script_names([name])]
    scripts = "".join(f"<script>\n{source}\n</script>" for source in sources)
    if name == "live-model":
        weights.write(folder / "weights")
    page = PAGE.format(
        name=name,
        style=(FOLDER / "play.css").read_text(encoding="utf-8"),
        start=start_script(name, oracle(name).start()),
        caption=caption(name),
        scripts=scripts,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.html"
    path.write_text(page, encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m book.play", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("preview", help="one widget on a page of its own, in _build/play")
    show.add_argument("names", nargs="+", metavar="NAME")
    commands.add_parser("measure", help="the page's rounded models on SST-2, recorded in book/runs/play.json")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        from book.play.measure import record  # here, because it loads torch

        print(record())
        return
    for name in arguments.names:
        print(preview(name))


if __name__ == "__main__":
    main()
