"""The page of `minit2v serve` in a real Chromium: a clip, every step of it, a line of visitors, errors. `make browser`

Screenshots are kept in build/browser.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lab_page import CHROMIUM, CHROMIUM_FLAGS, PATIENCE, wait_for

pytest.importorskip("playwright")
pytest.importorskip("panel")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")

OUTPUT = Path(__file__).parents[2] / "build/browser"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where a server of the shipped model listens."""
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "minit2v", "serve", "--model", "mini", "--port", "0", "--device", "cpu"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        found = wait_for("the server", lambda: re.search(r"^(http\S+)  mini", log.read_text(), re.M))
        yield found[1]
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) in (0, 130) and "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.kill()


@pytest.fixture
def visit(address):
    """Opens a page for a visitor; what it asks for and complains of is kept."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))

        def open_page(width=1280):
            page = chromium.new_page(viewport={"width": width, "height": 1000})
            page.set_default_timeout(PATIENCE * 1000)
            page.asked, page.complaints = [], []
            page.on("request", lambda request: page.asked.append(request.url))
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.goto(address)
            page.get_by_role("button", name="Make a clip").wait_for()
            return page

        yield open_page
        chromium.close()


def make(page, prompt, steps=4):
    page.get_by_label("Prompt").fill(prompt)
    slider = page.locator(".noUi-handle").first
    slider.focus()
    slider.press("Home")  # one step
    for _ in range(steps - 1):
        slider.press("ArrowRight")
    page.get_by_role("button", name="Make a clip").click()


def test_a_prompt_becomes_a_clip_whose_steps_can_be_scrubbed(visit):
    page = visit()
    make(page, "a large red circle moves left")
    page.locator("video").wait_for()
    video = page.locator("video").evaluate("v => new Promise(ready => { const look = () => v.readyState >= 2 ? "
                                           "ready([v.videoWidth, v.error]) : setTimeout(look, 50); look(); })")
    assert video == [64, None]
    assert page.locator(".judged pre").inner_text().startswith("judge: shape circle")
    slider = page.get_by_role("slider", name="step", exact=True)
    assert slider.get_attribute("max") == "3"
    canvas = page.locator(".minit2v canvas").first
    look = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let s = 0; "\
           "for (const v of d) s = (31 * s + v) | 0; return s; }"
    before = canvas.evaluate(look)
    slider.focus()
    slider.press("End")
    wait_for("another picture", lambda: canvas.evaluate(look) != before, 20)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=OUTPUT / "serve.png", full_page=True)
    hosts = {urlsplit(url).hostname for url in page.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"} and not page.complaints


def test_an_error_is_one_line_and_the_page_goes_on(visit):
    page = visit(800)
    make(page, "a red <b>elephant</b><img src=x onerror=document.title=1> moves left")  # in Chromium it would run
    status = page.locator(".status pre")
    wait_for("the line", lambda: "elephant" in status.inner_text(), 60)
    assert "Traceback" not in page.content() and len(status.inner_text().strip().splitlines()) == 1
    assert page.locator("video").count() == page.locator("img, b").count() == 0 and page.title() == "minit2v"
    page.screenshot(path=OUTPUT / "serve-error.png", full_page=True)
    make(page, "a large red circle moves left", 1)
    page.locator("video").wait_for()
    assert status.inner_text().strip() == ""
    page.screenshot(path=OUTPUT / "serve-narrow.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_two_visitors_at_once_are_served_one_after_the_other(visit):
    first, second = visit(), visit()
    make(first, "a large red circle moves left", 30)
    make(second, "a large blue ring moves up", 2)
    wait_for("the line", lambda: "1 before you" in second.locator(".status pre").inner_text(), 60)
    assert second.locator("video").count() == 0
    second.locator("video").wait_for()
    assert first.locator("video").count() == 1
