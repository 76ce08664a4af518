"""The page of `minit2v serve` in a real Chromium: a clip, every step of it, a line of visitors, errors, narrow, in the dark.
`make browser`

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

# the texts of the page, also within shadow roots, with the contrast that each has with what is behind it (WCAG 2.2, 1.4.3)
CONTRASTS = """() => {
  const paper = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const seen = (colour) => {
    paper.clearRect(0, 0, 1, 1);
    paper.fillStyle = colour;
    paper.fillRect(0, 0, 1, 1);
    return [...paper.getImageData(0, 0, 1, 1).data];
  };
  const up = (node) => node.parentElement ?? node.getRootNode().host;
  const behind = (node) => {
    const colour = seen(getComputedStyle(node).backgroundColor);
    return colour[3] === 255 || !up(node) ? colour : behind(up(node));
  };
  const solid = (node) => node ? getComputedStyle(node).opacity * solid(up(node)) : 1;
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const contrast = (node) => {
    const ground = behind(node), ink = seen(getComputedStyle(node).color), share = solid(node);
    const [low, high] = [light(ground), light(ink.map((v, i) => share * v + (1 - share) * ground[i]))].sort((a, b) => a - b);
    return high / low;
  };
  const all = (root) => root ? [...root.querySelectorAll("*")].flatMap((node) => [node, ...all(node.shadowRoot)]) : [];
  const said = (node) => node.matches("input:not([type=radio], [type=range]), select") ? node.value
    : [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data).join("").trim();
  const shown = all(document.body).filter((node) => node.checkVisibility({ visibilityProperty: true }) && said(node));
  return shown.map((node) => [said(node), contrast(node)]);
}"""


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

        def open_page(width=1280, scheme="light"):
            page = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
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


def test_the_clip_before_is_not_taken_for_the_answer(visit):
    page = visit()
    make(page, "a large red circle moves left", 1)
    page.locator("video").wait_for()
    assert page.locator(".old").count() == 0 and not page.locator(".before").is_visible()
    make(page, "a red elephant moves left", 1)
    wait_for("the line", lambda: "elephant" in page.locator(".status pre").inner_text(), 60)
    assert page.locator(".old video").count() == 1 and page.locator(".before pre").inner_text().strip() == "the clip before:"
    assert page.locator(".old").evaluate("e => getComputedStyle(e).filter") == "grayscale(1)"
    make(page, "a large red circle moves right", 1)
    page.locator(".minit2v", has_text="right").wait_for()
    assert page.locator(".old").count() == 0 and not page.locator(".before").is_visible()


def test_the_words_are_folded_below_the_prompt(visit):
    page = visit()
    words, field = page.locator(".words dl"), page.get_by_label("Prompt")
    assert not words.is_visible()
    page.get_by_text("Words that the model knows").click()
    assert {"ring", "leftwards"} <= set(words.inner_text().split()) and "elephant" not in words.inner_text()
    assert words.bounding_box()["y"] > field.bounding_box()["y"]


def test_nothing_is_cut_on_a_telephone(visit):
    page = visit(390)
    make(page, "a large red circle moves left", 12)  # whose readouts are the longest
    page.get_by_role("slider", name="step", exact=True).press("End")
    readout = page.locator(".mt-readout").first
    wait_for("the last step", lambda: readout.inner_text().startswith("12 of 12 · t "))
    cut = "() => ['scrollWidth', 'clientWidth'].map((name) => document.documentElement[name])"
    for width in (390, 800, 1280):
        page.set_viewport_size({"width": width, "height": 1000})
        wide, room = page.evaluate(cut)
        assert wide <= room, width
        for one in page.locator(".mt-readout").all():
            right, end = one.evaluate("e => { const words = document.createRange(); words.selectNodeContents(e); return "
                                      "[words, e].map((one) => one.getBoundingClientRect().right); }")  # fmt: skip
            assert right <= min(end, width), (width, one.inner_text())
        page.screenshot(path=OUTPUT / f"serve-{width}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_in_dark(visit, scheme):
    page = visit(scheme=scheme)
    make(page, "a large red circle moves left", 1)
    page.locator(".minit2v canvas").first.wait_for()
    page.get_by_text("Words that the model knows").click()
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 64) is (scheme == "dark")
    found = page.evaluate(CONTRASTS)
    assert {"minit2v", "Prompt", "Make a clip", "colour", "latent channels", "ddim"} <= {text for text, _ in found}
    assert [(text, contrast) for text, contrast in found if contrast < 4.5] == []
    page.screenshot(path=OUTPUT / f"serve-{scheme}.png", full_page=True)


def test_two_visitors_at_once_are_served_one_after_the_other(visit):
    first, second = visit(), visit()
    make(first, "a large red circle moves left", 30)
    make(second, "a large blue ring moves up", 2)
    wait_for("the line", lambda: "1 before you" in second.locator(".status pre").inner_text(), 60)
    assert second.locator("video").count() == 0
    second.locator("video").wait_for()
    assert first.locator("video").count() == 1
