"""The built site in a real Chromium, opened as a file: widgets turn, nothing comes from elsewhere. `make site browser`"""

from pathlib import Path

import pytest
from lab_page import CHROMIUM, CHROMIUM_FLAGS, wait_for

pytest.importorskip("playwright")
ROOT = Path(__file__).parents[2]
SITE = ROOT / "dist/site"
LIVE = ROOT / "site/live/00_take_off.json"
pytestmark = pytest.mark.skipif(CHROMIUM is None or not (SITE / "index.html").exists(), reason="needs chromium, and make site")


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["index", "notebooks/00_take_off", "docs/appendix", "api/diffusion"])
def test_a_page_fits_and_asks_no_other_host(chromium, name, width, scheme):
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"file://{SITE}/{name}.html")
    page.wait_for_load_state("networkidle")
    assert not wrong and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    wide, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= room
    page.close()


def test_the_scrubber_of_the_front_page_turns_without_a_kernel(chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"file://{SITE}/index.html")
    scrubber = page.locator(".live")
    wait_for("the widget", lambda: scrubber.locator(".minit2v").count() == 1)
    step = lambda: scrubber.locator("output").first.inner_text().partition(" ·")[0]
    assert step() == "1 of 12"
    scrubber.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    wait_for("the next step", lambda: step() == "2 of 12")
    page.close()


@pytest.mark.skipif(not LIVE.exists(), reason="needs what the widgets show: make notebooks ONLY=00, then make site")
def test_a_pair_of_widgets_moves_together(chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"file://{SITE}/notebooks/00_take_off.html")
    pair = page.locator('.live[data-widget$="left-and-right.js"]')
    pair.scroll_into_view_if_needed()
    wait_for("both widgets", lambda: pair.locator(".minit2v").count() == 2)
    steps = lambda: [pair.locator(".minit2v").nth(i).locator("output").first.inner_text().partition(" ·")[0] for i in (0, 1)]
    assert steps() == ["1 of 12", "1 of 12"]
    pair.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    wait_for("both to move", lambda: steps() == ["2 of 12", "2 of 12"])
    page.close()


def test_search_finds_a_word_of_a_notebook(chromium):
    page = chromium.new_page()
    page.goto(f"file://{SITE}/search.html?q=scaled_linear")
    wait_for("a result", lambda: page.locator("#search-results li a").count() > 0)
    page.close()
