"""The widgets of the pages in a real browser: their numbers are Python's, by keyboard, at every width, light and dark.

Each is opened from the disk on a page of its own, as `python -m book.play preview NAME` writes it.
"""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from book.play.__main__ import ORACLES, oracle, preview
from book.press.floors import ROOT
from tests.book.test_pages import browser, violations  # noqa: F401

pytestmark = pytest.mark.browser
NAMES = sorted(path.stem.replace("_", "-") for path in ORACLES.glob("[a-z]*.py"))
LOOKS = [(1300, False), (1300, True), (390, False), (390, True)]
CONTROLS = "input, select, textarea, button"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """The address of each widget's own page."""
    folder = tmp_path_factory.mktemp("play")
    return {name: preview(name, folder).as_uri() for name in NAMES}


@pytest.fixture
def opened(browser, pages):
    """A widget on its page; at the end, nothing may have been asked of another host, and nothing complained."""
    made: list[Page] = []
    complaints: list[str] = []

    def complain(message) -> None:
        complaints.append(f"console: {message.text}")

    def open_page(name: str, width: int = 1300, dark: bool = False) -> Locator:
        scheme = "dark" if dark else "light"
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        made.append(page)
        page.on("console", lambda m: complain(m) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        away = re.compile(r"^(?!file:|data:|blob:)")
        page.on("request", lambda r: complaints.append(f"asks {r.url}") if away.match(r.url) else None)
        page.goto(pages[name])
        figure = page.locator(f"figure[data-play='{name}']")
        figure.locator("[data-play-output]").wait_for()
        if name == "live-model":
            figure.locator("[data-probability]").wait_for()
        return figure

    yield open_page
    for page in made:
        page.close()
    assert not complaints, "\n".join(complaints)


def do(figure: Locator, label: str, value: object) -> None:
    """Set the control with this label: click it, check it, choose, or fill."""
    named = figure.get_by_label(label).or_(figure.get_by_role("button", name=label))
    control = named.and_(figure.locator(CONTROLS)).first  # the caption, too, is a label: of the whole widget
    kind = control.evaluate("node => node.type || node.tagName.toLowerCase()")
    if value == "click":
        control.click()
    elif kind == "select-one":
        control.select_option(str(value))
    elif kind == "checkbox":
        control.set_checked(bool(value))
    else:
        control.fill(str(value))


def said(figure: Locator) -> dict[str, str]:
    """The numbers of the sentence, and whatever else carries `data-play-value`."""
    nodes = "nodes => nodes.map(node => [node.dataset.playValue, node.textContent])"
    return dict(figure.locator("[data-play-value]").evaluate_all(nodes))


def agrees(text: str, wanted: object) -> bool:
    """Whether what is shown is what Python says, to the digits that are shown."""
    if isinstance(wanted, str):
        return text == wanted
    shown = float(text.replace("−", "-").replace("∞", "inf").removesuffix("%"))
    if wanted != wanted or shown != shown or abs(wanted) == float("inf"):
        return str(shown) == str(float(wanted))
    digits = len(text.removesuffix("%").strip().partition(".")[2])
    return abs(shown - wanted) <= 0.5 * 10**-digits + 1e-6 * max(1, abs(wanted))


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_says_what_python_says(opened, name):
    figure = opened(name)
    for steps, wanted in oracle(name).states():
        figure.locator("[data-play-reset]").click()
        for label, value in steps:
            do(figure, label, value)
        found = said(figure)
        missing = wanted.keys() - found.keys()
        assert not missing, f"{name} after {steps} does not say {missing}"
        wrong = {key: (found[key], wanted[key]) for key in wanted if not agrees(found[key], wanted[key])}
        assert not wrong, f"{name} after {steps} says (page, Python): {wrong}"


@pytest.mark.parametrize("width, dark", LOOKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_widget_fits_and_can_be_read(opened, name, width, dark):
    figure = opened(name, width, dark)
    page = figure.page
    wide = page.evaluate("() => document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{name} is {wide} px wider than the page"
    assert figure.locator("figcaption").inner_text().strip().startswith("Before"), "a caption asks first"
    assert not violations(page), "\n".join(violations(page))


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_is_played_by_keyboard_and_goes_back(opened, name):
    figure = opened(name)
    page, output = figure.page, figure.locator("[data-play-output]")
    assert output.get_attribute("aria-live") == "polite"
    first = output.inner_text()
    assert re.search(r"\w{3}.* .*\w", first), "the result is said in words"
    named = "n => (n.labels?.length ? n.labels[0].textContent : n.ariaLabel || n.textContent).trim()"
    controls = figure.locator(CONTROLS).all()
    assert len(controls) > 1, "something to move, and a reset"
    for control in controls:
        assert control.evaluate(named), "every control has a name"
        inside = "n => n.tabIndex >= 0 || n.disabled || !!n.closest('.play-grid, [role=radiogroup]')"
        assert control.evaluate(inside), "the keyboard reaches every control"
    page.keyboard.press("Tab")
    stops = figure.evaluate(
        f"f => [...f.querySelectorAll('{CONTROLS}')].filter(n => n.tabIndex >= 0 && !n.disabled).length"
    )
    for _ in range(stops - 1):
        page.keyboard.press("Tab")
    assert page.evaluate("() => 'playReset' in document.activeElement.dataset"), "the reset comes last"
    same = "([node, text]) => node.innerText === text"

    def back() -> None:
        figure.locator("[data-play-reset]").press("Enter")
        page.wait_for_function(same, arg=[figure.locator("[data-play-output]").element_handle(), first])

    for control in figure.locator("input[type=range], select, input[type=checkbox]").all():
        if not control.is_enabled() or not control.is_visible():
            continue
        value = "n => n.type === 'checkbox' ? n.checked : n.value"
        before = control.evaluate(value)
        control.focus()
        for key in ("Space",) if isinstance(before, bool) else ("ArrowRight", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
            if control.evaluate(value) != before:
                break
        assert control.evaluate(value) != before, "a key moves every control"
        back()


BUILT = {
    name: path
    for path in sorted((ROOT / "_build" / "html").glob("[bc]*/*.html"))
    for name in re.findall(r'<figure[^>]*data-play="([^"]+)"', path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("name", BUILT)
def test_a_built_page_holds_its_widget(browser, name):
    path: Path = BUILT[name]
    for print_media in (False, True):
        page = browser.new_page()
        page.goto(path.as_uri())
        figure = page.locator(f"figure[data-play='{name}']")
        figure.locator("[data-play-output]").wait_for(state="attached")
        page.emulate_media(media="print" if print_media else "screen")
        assert figure.locator(".play-live").is_visible() is not print_media
        if figure.locator("img").count():
            assert figure.locator("img").first.is_visible() is print_media, "paper carries the picture"
        page.close()


@pytest.mark.parametrize("name", sorted(BUILT.keys() & set(NAMES)))
def test_a_page_gives_its_widget_the_numbers_of_its_oracle(browser, name):
    page = browser.new_page()
    page.goto(BUILT[name].as_uri())
    found = json.loads(page.locator(f"script[data-play-start='{name}']").text_content() or "")
    page.close()
    wanted = json.loads(json.dumps(oracle(name).start(), default=lambda value: value.tolist()))
    assert found.keys() == wanted.keys()
    for key in getattr(oracle(name), "RECORDED", ()):
        assert [len(row) for row in found[key]] == [len(found[key][0])] * len(found[key]), f"{key} is a table"
        assert len(found.pop(key)[0]) == len(wanted.pop(key)[0]), f"{key} has other columns than the oracle's"
    assert nearly(found, wanted), f"{name}: the chapter's cell hands over other numbers than the oracle"


def nearly(a: object, b: object) -> bool:
    """Equal, numbers to five digits."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(nearly(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(nearly, a, b))
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return abs(a - b) <= 1e-5 * max(1, abs(a)) if numbers else a == b


def test_every_widget_has_an_oracle() -> None:
    scripts = {path.stem for path in (ROOT / "book" / "play").glob("*.js")} - {"play", "encoder"}
    assert scripts == set(NAMES), "each of book/play/NAME.js has tests/book/play_oracles/NAME.py"
