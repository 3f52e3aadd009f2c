"""The rendered book in a real browser: no request leaves it, nothing overflows, figures and formulas are there.

Needs `make book` first and Chromium on the machine; run by `make browser`.
"""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, sync_playwright

from book.press.floors import ROOT
from book.press.read import read_chapters
from book.press.tangle import read_book, superseded

pytestmark = pytest.mark.browser
HTML = ROOT / "_build" / "html"
PAGES = sorted(
    p.relative_to(HTML).as_posix() for folder in ("chapters", "book") for p in (HTML / folder).glob("*.html")
)
CHAPTERS = {chapter.path.stem: chapter for chapter in read_chapters()}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
AXE = ROOT / "tests" / "book" / "axe" / "axe.min.js"  # axe-core, for tests alone
STILL = "() => document.getAnimations().every(each => each.playState !== 'running')"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The book served on this machine alone."""
    assert PAGES, "no pages in _build/html: run `make book` first"
    handler = functools.partial(QuietHandler, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium found: install it, or name it in the environment variable CHROMIUM"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


class Opened(NamedTuple):
    """A page once its formulas are typeset, with every request it made and every complaint it logged."""

    path: str
    page: Page
    requests: list[str]
    complaints: list[str]

    def look(self, width: int = 1200, dark: bool = False) -> Page:
        """The page at this width, light or dark, once nothing moves any more."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        theme = "dark" if dark else "light"
        self.page.wait_for_function(f"() => document.documentElement.dataset.theme === '{theme}'")
        self.page.wait_for_function(STILL)
        return self.page


def opened(browser: Browser, url: str) -> Opened:
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.goto(url, wait_until="networkidle")
    page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    return Opened(url, page, requests, complaints)


@pytest.fixture(
    scope="module",
    params=[pytest.param(path, marks=pytest.mark.xdist_group(path), id=path) for path in PAGES],
)
def shown(request, browser, site) -> Iterator[Opened]:
    """Each page, opened once for all tests that look at it, in one process."""
    found = opened(browser, f"{site}/{request.param}")
    yield found
    found.page.close()


def test_page_is_whole_and_stays_at_home(shown, site):
    page = shown.look()
    away = [url for url in shown.requests if not url.startswith((site, "data:", "blob:"))]
    assert away == [], "a page of the book may ask no other host for anything"
    assert not shown.complaints, "\n".join(shown.complaints)
    images = page.evaluate("() => [...document.images].map(i => [i.src, i.alt, i.naturalWidth])")
    for source, alt, width in images:
        assert width > 0, f"{source} does not load"
        assert alt.strip() or "logo" in source, f"{source} has no alternative text"
    formulas = page.locator(".math").count()
    typeset = page.locator(".math mjx-container").count()
    assert typeset >= formulas, f"{formulas - typeset} of {formulas} formulas are not typeset"
    assert page.locator("mjx-merror").count() == 0, "MathJax reports an error in a formula"


# A long page has ten thousand spans of coloured code and signatures. Of those that look alike, light and dark, on the
# same ground, one is judged; the others are unwrapped.
ONE_OF_EACH = """() => {
    const root = document.documentElement.dataset, theme = root.theme;
    const spans = [...document.querySelectorAll(".highlight span, dt.sig span")], looks = spans.map(() => "");
    const ground = node => {
        const colour = getComputedStyle(node).backgroundColor;
        return colour !== "rgba(0, 0, 0, 0)" || !node.parentElement ? colour : ground(node.parentElement); };
    for (root.theme of ["light", "dark"])
        spans.forEach((span, i) => {
            const style = getComputedStyle(span);
            looks[i] += [span.className, style.color, style.fontSize, style.fontWeight, style.opacity, ground(span)]; });
    root.theme = theme;
    const seen = new Set();
    spans.forEach((span, i) => { if (seen.has(looks[i])) span.replaceWith(...span.childNodes); else seen.add(looks[i]); });
}"""


def violations(page: Page) -> list[str]:
    """What axe-core finds on a page against WCAG 2.1 AA."""
    page.wait_for_function(STILL)
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(path=str(AXE))
        page.evaluate(ONE_OF_EACH)
    found = page.evaluate("tags => axe.run({runOnly: tags}).then(found => found.violations)", WCAG)
    return [f"{v['id']}: {node['html']}\n{node['failureSummary']}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_can_be_read_by_everyone(shown, dark):
    found = violations(shown.look(dark=dark))
    assert not found, f"{len(found)} violations of WCAG 2.1 AA:\n" + "\n".join(found[:20])


def test_page_fits_a_phone(shown):
    page = shown.look(width=390)
    wide = page.evaluate("() => document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"the page is {wide} px wider than a phone"
    shrunk = (
        "() => [...document.querySelectorAll('.cell_output img')].map(i => [i.width / i.naturalWidth, i.alt])"
    )
    for share, alt in page.evaluate(shrunk):
        assert share == 0 or share >= 0.57, (
            f"letters shrink to {share:.0%} in the figure {alt!r}"
        )  # 0: folded


def test_no_code_and_no_printing_scrolls_sideways_on_a_laptop(shown):
    page = shown.look(width=1300)
    found = page.evaluate(
        """() => [...document.querySelectorAll(".bd-article pre")].filter(e => e.scrollWidth > e.clientWidth)
            .map(e => e.innerText.split("\\n").reduce((a, b) => b.length > a.length ? b : a))"""
    )
    assert not found, f"{len(found)} boxes scroll sideways, for lines such as {found[0]!r}"


def test_page_reads_in_the_dark(shown):
    page = shown.look(dark=True)
    brightness = """selector => {
        const style = getComputedStyle(document.querySelector(selector));
        const of = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, x) => sum + Number(x), 0) / 765;
        return [of(style.color), of(getComputedStyle(document.body).backgroundColor)];
    }"""
    text, ground = page.evaluate(brightness, "article p, article h1, main h1")
    assert ground < 0.3 < 0.6 < text
    filters = page.evaluate(
        "() => [...document.querySelectorAll('.cell_output img')].map(i => getComputedStyle(i).filter)"
    )
    assert all("invert" in value for value in filters), (
        "figures are drawn on white: the dark page must invert them"
    )


def test_every_exported_cell_has_its_badge(shown):
    if (name := Path(shown.path).stem) not in CHAPTERS:
        pytest.skip("no chapter")
    cells = CHAPTERS[name].code
    exported = [
        f"→ minitransformer/{cell.module.replace('.', '/')}.py" for cell in cells if "export" in cell.tags
    ]
    tested = [f"✓ tests/test_{cell.module.replace('.', '_')}.py" for cell in cells if "test" in cell.tags]
    assert shown.page.locator(".press-export").all_inner_texts() == exported
    assert shown.page.locator(".press-test").all_inner_texts() == tested


@functools.cache
def html(path: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / path).read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_badge_leads_to_the_source(name):
    for link in html(f"chapters/{name}.html").select(".press-export")[:1]:
        target, anchor = str(link["href"]).split("#")
        path = (HTML / "chapters" / target).resolve().relative_to(HTML.resolve()).as_posix()
        assert html(path).find(id=anchor), f"{link} leads nowhere"


def test_superseding_cells_show_their_diff():
    pairs = superseded(read_book(list(CHAPTERS.values())))
    for name, chapter in CHAPTERS.items():
        expected = sum(len(found) for (path, _), found in pairs.items() if path == chapter.path)
        assert len(html(f"chapters/{name}.html").select("details.press-diff")) == expected


def test_the_problem_log_holds_every_problem_of_the_chapters():
    listed = len(html("book/problem_log.html").select("div.admonition.problem"))
    in_chapters = sum(
        len(html(f"chapters/{name}.html").select("div.admonition.problem")) for name in CHAPTERS
    )
    assert listed == in_chapters > 0


@pytest.mark.parametrize("name", CHAPTERS)
def test_solutions_are_folded(name):
    page = html(f"chapters/{name}.html")
    solutions = page.select("div.solution")
    assert len(solutions) == len(page.select("div.exercise")), "every exercise has its solution"
    assert solutions or name.startswith("workshop_"), "a day has exercises"
    assert all("dropdown" in node["class"] for node in solutions)


def test_search_index_and_assets_are_local() -> None:
    for path in PAGES:
        text = Path(HTML, path).read_text(encoding="utf-8")
        for tag in ('<script src="http', '<link rel="stylesheet" href="http', '<img src="http'):
            assert tag not in text, f"{path} loads from another host: {tag}"
