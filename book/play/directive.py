"""Sphinx: the directive `{play}`, and a widget's scripts on the pages that hold one."""

import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.ext.glue.directives import PasteFigureDirective
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book.play import script_names
from book.press.floors import ROOT

FOLDER = ROOT / "book" / "play"


class play(nodes.figure):
    """A figure that scripts bring to life; without them, and on paper, it is its static picture."""


class Play(SphinxDirective):
    """A widget. Argument: its name. Content: the caption, a question first. Options: `glue`, a picture; `alt`; `name`."""

    required_arguments = 1
    has_content = True
    option_spec = {"glue": directives.unchanged, "alt": directives.unchanged, "name": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        widget = self.arguments[0]
        if not (FOLDER / f"{widget}.js").is_file():
            raise self.error(f"there is no widget {widget!r}: book/play/{widget}.js is missing")
        figure = play("", play=widget, classes=["play"])
        self.set_source_info(figure)
        if key := self.options.get("glue"):
            if not self.options.get("alt"):
                raise self.error("the picture of a widget needs :alt:, for those who do not see it")
            options = {"alt": self.options["alt"]}
            rest = (self.content[:0], self.lineno, self.content_offset, "", self.state, self.state_machine)
            (picture, *messages) = PasteFigureDirective("glue:figure", [key], options, *rest).run()
            if messages or not isinstance(picture, nodes.figure):
                return [picture, *messages]
            figure += picture.children
        block = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, block)
        if not block.children or not isinstance(block[0], nodes.paragraph):
            raise self.error("a widget needs a caption that asks for a prediction: 'Before you move it: …'")
        figure += nodes.caption(block[0].rawsource, "", *block[0].children)
        if len(block.children) > 1:
            figure += nodes.legend("", *block[1:])
        self.add_name(figure)
        return [figure]


def visit(translator, node: play) -> None:
    translator.body.append(translator.starttag(node, "figure", **{"data-play": node["play"]}))


def depart(translator, _) -> None:
    translator.body.append("</figure>\n")


def as_figure(kind: str):
    """How a builder without scripts treats a widget: as it treats any figure."""
    return lambda translator, node: getattr(translator, f"{kind}_figure")(node)


def copy_scripts(app: Sphinx) -> None:
    """The widgets' scripts, their style, and the weights of the live model, into the book's static files."""
    if app.builder.format == "html":
        from book.play import weights  # here, because it loads torch

        target = Path(app.outdir, "_static", "play")
        target.mkdir(parents=True, exist_ok=True)
        for source in [*FOLDER.glob("*.js"), *FOLDER.glob("*.css")]:
            shutil.copyfile(source, target / source.name)
        weights.write(target / "weights")


def add_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """The scripts of the widgets that a page holds, and none on a page without one; paint waits for none of them."""
    widgets = {node["play"] for node in doctree.findall(play)} if doctree else set()
    if widgets:
        app.add_css_file("play/play.css")
        for name in script_names(widgets):
            app.add_js_file(f"play/{name}.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    writer = (as_figure("visit"), as_figure("depart"))
    app.add_enumerable_node(
        play, "figure", None, html=(visit, depart), latex=writer, text=writer, man=writer, texinfo=writer
    )
    app.add_directive("play", Play)
    app.connect("builder-inited", copy_scripts)
    app.connect("html-page-context", add_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
