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

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from book.press.floors import ROOT
from book.press.read import read_chapters
from book.press.tangle import read_book, superseded

pytestmark = pytest.mark.browser
HTML = ROOT / "_build" / "html"
PAGES = sorted(
    p.relative_to(HTML).as_posix() for folder in ("chapters", "book") for p in (HTML / folder).glob("*.html")
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
AXE = ROOT / "tests" / "book" / "axe" / "axe.min.js"  # axe-core, for tests alone
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


def opened(
    browser: Browser, url: str, width: int = 1200, dark: bool = False
) -> tuple[Page, list[str], list[str]]:
    """A page once its formulas are typeset, with every request it made and every complaint it logged."""
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.goto(url, wait_until="networkidle")
    page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    return page, requests, complaints


@pytest.mark.parametrize("path", PAGES)
def test_page_is_whole_and_stays_at_home(browser, site, path):
    page, requests, complaints = opened(browser, f"{site}/{path}")
    away = [url for url in requests if not url.startswith((site, "data:", "blob:"))]
    assert away == [], "a page of the book may ask no other host for anything"
    assert not complaints, "\n".join(complaints)
    images = page.evaluate("() => [...document.images].map(i => [i.src, i.alt, i.naturalWidth])")
    for source, alt, width in images:
        assert width > 0, f"{source} does not load"
        assert alt.strip() or "logo" in source, f"{source} has no alternative text"
    formulas = page.locator(".math").count()
    typeset = page.locator(".math mjx-container").count()
    assert typeset >= formulas, f"{formulas - typeset} of {formulas} formulas are not typeset"
    assert page.locator("mjx-merror").count() == 0, "MathJax reports an error in a formula"
    page.close()


def violations(page: Page) -> list[str]:
    """What axe-core finds on a page against WCAG 2.1 AA."""
    page.wait_for_function("() => document.getAnimations().every(each => each.playState !== 'running')")
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("tags => axe.run({runOnly: tags}).then(found => found.violations)", WCAG)
    return [f"{v['id']}: {node['html']}\n{node['failureSummary']}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_page_can_be_read_by_everyone(browser, site, path, dark):
    page, _, _ = opened(browser, f"{site}/{path}", dark=dark)
    found = violations(page)
    assert not found, f"{len(found)} violations of WCAG 2.1 AA:\n" + "\n".join(found[:20])
    page.close()


@pytest.mark.parametrize("path", PAGES)
def test_page_fits_a_phone(browser, site, path):
    page, _, _ = opened(browser, f"{site}/{path}", width=390)
    wide = page.evaluate("() => document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"the page is {wide} px wider than a phone"
    page.close()


@pytest.mark.parametrize("path", PAGES)
def test_page_reads_in_the_dark(browser, site, path):
    page, _, _ = opened(browser, f"{site}/{path}", dark=True)
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
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
    page.close()


@pytest.mark.parametrize("chapter", read_chapters(), ids=lambda chapter: chapter.path.stem)
def test_every_exported_cell_has_its_badge(browser, site, chapter):
    page, _, _ = opened(browser, f"{site}/chapters/{chapter.path.stem}.html")
    exported = [cell.module for cell in chapter.code if "export" in cell.tags]
    tested = [cell.module for cell in chapter.code if "test" in cell.tags]
    assert page.locator(".press-export").all_inner_texts() == [
        f"→ minitransformer/{name}.py" for name in exported
    ]
    assert page.locator(".press-test").all_inner_texts() == [f"✓ tests/test_{name}.py" for name in tested]
    for link in page.locator(".press-export").evaluate_all("links => links.map(a => a.href)")[:1]:
        target, anchor = link.split("#")
        page.goto(target)
        assert page.locator(f"[id='{anchor}']").count() == 1, f"{link} leads nowhere"
    page.close()


def test_superseding_cells_show_their_diff(browser, site):
    pairs = superseded(read_book(read_chapters()))
    for chapter in read_chapters():
        page, _, _ = opened(browser, f"{site}/chapters/{chapter.path.stem}.html")
        expected = sum(len(found) for (path, _), found in pairs.items() if path == chapter.path)
        assert page.locator("details.press-diff").count() == expected
        page.close()


def test_the_problem_log_holds_every_problem_of_the_chapters(browser, site):
    page, _, _ = opened(browser, f"{site}/book/problem_log.html")
    listed = page.locator("div.admonition.problem").count()
    page.close()
    shown = 0
    for chapter in read_chapters():
        page, _, _ = opened(browser, f"{site}/chapters/{chapter.path.stem}.html")
        shown += page.locator("div.admonition.problem").count()
        page.close()
    assert listed == shown > 0


def test_solutions_are_folded(browser, site):
    for chapter in read_chapters():
        page, _, _ = opened(browser, f"{site}/chapters/{chapter.path.stem}.html")
        assert page.locator("div.solution").count() == page.locator("div.exercise").count() > 0
        assert page.locator("div.solution.dropdown").count() == page.locator("div.solution").count()
        page.close()


def test_search_index_and_assets_are_local() -> None:
    for path in PAGES:
        text = Path(HTML, path).read_text(encoding="utf-8")
        for tag in ('<script src="http', '<link rel="stylesheet" href="http', '<img src="http'):
            assert tag not in text, f"{path} loads from another host: {tag}"
