"""The pages: badges and diffs on the chapters' cells, the problem log, local MathJax, a cache that knows the package."""

import hashlib
import os
import platform
import re
import shutil
from html import escape
from importlib.metadata import distribution, version
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import DiffLexer
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from book.press.execute import execute_ahead
from book.press.floors import PACKAGE, ROOT, module_path, tests_path
from book.press.notebooks import offer, write_notebooks
from book.press.read import Chapter, read_chapters
from book.press.tangle import Definition, read_book, superseded
from book.press.write import diff

PROBLEM = re.compile(r"^(`{3,}|:{3,})\{problem\} *(.+)\n([\s\S]*?)^\1 *$", re.M)
LABEL_ABOVE = re.compile(r"\(([A-Za-z0-9_-]+)\)=\s*\Z")
MATHJAX = "mathjax/tex-svg-full.js"
PAGES: dict[str, Chapter] = {}  # by document name; filled when the builder starts
CHANGES: dict[tuple[Path, int], list[tuple[Definition, Definition]]] = {}


def sources() -> list[Path]:
    """Everything that a chapter reads besides its own cells."""
    files = [
        *(ROOT / PACKAGE).rglob("*.py"),
        *(ROOT / "book").glob("*.py"),
        *(ROOT / "book" / "play").glob("*.py"),
        *(ROOT / "configs").glob("*.yaml"),
    ]
    files += [p for p in (ROOT / "book" / "runs").rglob("*") if p.is_file()]
    return sorted(files)


def digest(files: list[Path], *words: str) -> str:
    total = hashlib.sha256("\n".join(words).encode())
    for path in files:
        total.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:16]


def configure(app: Sphinx, config) -> None:
    """Set what depends on the project's state: the execution cache, the press's version of the pages, the kernel's world."""
    os.environ["MINITRANSFORMER_BOOK"] = "1"  # exercises must fail on their stubs while the book is built
    data = os.environ.get("MINITRANSFORMER_DATA", "")
    if data:
        os.environ["MINITRANSFORMER_DATA"] = str(
            Path(data).resolve()
        )  # kernels run in the folder of their page
    state = digest(sources(), platform.python_version(), version("torch"), version("matplotlib"), data)
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / state)
    config.press_state = digest(sorted((ROOT / "chapters").glob("*.md")), state)
    config.mathjax_path = MATHJAX


def without_thebe(app: Sphinx, config) -> None:
    """Jupyter Book always loads Thebe, which would run cells on another host; the book has no use for it."""
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            name = f"{listener.handler.__module__}.{getattr(listener.handler, '__name__', '')}"
            if name.startswith("sphinx_thebe") and not name.endswith(
                ".st_static_path"
            ):  # its style sheet is linked
                app.disconnect(listener.id)


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """MathJax from its wheel into the book, so that no page asks another host for it."""
    if error is None and app.builder.format == "html":
        origin = distribution("sphinx-mathjax-offline").locate_file(
            f"sphinx-mathjax-offline/static/{MATHJAX}"
        )
        target = Path(app.outdir, "_static", MATHJAX)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(origin), target)


def one_page_as_many(app: Sphinx) -> None:
    """Let the builder of one long page, from which the PDF is printed, treat all nodes as that of many pages does.

    sphinx-exercise registers its nodes for it alone, and then Sphinx looks no further for any other node.
    """
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = {**handlers.get("html", {}), **handlers.get("singlehtml", {})}


class Badges(SphinxPostTransform):
    """Say on each exported or test cell where it goes, and on a superseding one what it changes."""

    default_priority = 250  # after myst-nb has folded hidden inputs
    formats = ("html",)

    def run(self, **_) -> None:
        chapter = PAGES.get(self.env.docname)
        if chapter is None:
            return
        cells = {cell.source.strip(): cell for cell in chapter.code}
        for node in list(self.document.findall(nodes.container)):
            if node.get("nb_element") != "cell_code" or not {"tag_export", "tag_test"} & set(node["classes"]):
                continue
            cell = cells[next(iter(node.findall(nodes.literal_block))).astext().strip()]
            node.insert(0, raw(self.badge(cell)))
            for old, new in CHANGES.get((chapter.path, cell.line), []):
                node.append(raw(difference(old, new)))

    def badge(self, cell) -> str:
        if "test" in cell.tags:
            return f'<span class="press-badge press-test">✓ {tests_path(cell.module)}</span>'
        one_page = self.app.builder.name == "singlehtml"
        page = "" if one_page else self.app.builder.get_relative_uri(self.env.docname, "book/api")
        anchor = f"api-{cell.module.replace('.', '-')}"
        return f'<a class="press-badge press-export" href="{page}#{anchor}">→ {module_path(cell.module)}</a>'


def raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def difference(old: Definition, new: Definition) -> str:
    """The folded diff between two versions of one definition."""
    before, after = old.chapter.name, new.chapter.name
    if before == after:
        before, after = f"{before}, earlier", "later"
    days = f"{before} → {after}"
    text = diff(old.source, new.source, before.lower(), after.lower())
    body = highlight(text, DiffLexer(), HtmlFormatter(nowrap=True))
    title = f"<summary><code>{escape(new.name)}</code>: {days}</summary>"
    return f'<details class="press-diff">{title}<div class="highlight-diff highlight"><pre>{body}</pre></div></details>'


class Problem(SphinxDirective):
    """One entry of the problem log, in the chapter where the mistake is made: an admonition with a title."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        block = nodes.admonition("\n".join(self.content), classes=["problem"])
        text, messages = self.state.inline_text(self.arguments[0], self.lineno)
        block += nodes.title(self.arguments[0], "", *text)
        self.state.nested_parse(self.content, self.content_offset, block)
        return [block, *messages]


class ProblemLog(SphinxDirective):
    """Every `{problem}` of the chapters, collected on one page with links to where it is shown."""

    def run(self) -> list[nodes.Node]:
        section = nodes.container()
        lines = []
        for chapter in PAGES.values():
            self.env.note_dependency(str(chapter.path))
            lines += log_lines(chapter)
        self.state.nested_parse(StringList(lines, source="problem log"), 0, section, match_titles=True)
        return section.children


def log_lines(chapter: Chapter) -> list[str]:
    """The problems of one chapter as Markdown: a heading for the day, then one entry each."""
    entries = []
    for cell in (cell for cell in chapter.cells if cell.kind == "markdown"):
        for match in PROBLEM.finditer(cell.source):
            label = LABEL_ABOVE.search(cell.source[: match.start()])
            link = f" ([where it happens](#{label[1]}))" if label else ""
            entries += [
                f"````{{admonition}} {match[2]}",
                ":class: problem",
                "",
                *match[3].strip().splitlines(),
                "",
                link.strip(),
                "````",
                "",
            ]
    return [f"## {chapter.title}", "", *entries] if entries else []


def collect(app: Sphinx) -> None:
    """Read the chapters once; badges, diffs and the problem log all speak from this."""
    book = read_book(read_chapters())
    PAGES.update({c.path.relative_to(ROOT).with_suffix("").as_posix(): c for c in book.chapters})
    CHANGES.update(superseded(book))


def setup(app: Sphinx) -> dict:
    app.add_config_value(
        "press_state", "", "env"
    )  # a change in any chapter re-reads all: diffs reach across chapters
    app.add_directive("problem", Problem)
    app.add_directive("problem-log", ProblemLog)
    app.add_post_transform(Badges)
    app.connect("config-inited", configure)
    app.connect("config-inited", without_thebe)
    app.connect("builder-inited", collect)
    app.connect("builder-inited", one_page_as_many)
    app.connect("env-before-read-docs", execute_ahead)
    app.connect("html-page-context", offer)  # after the theme's empty list of buttons, before it fills it
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_notebooks)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
