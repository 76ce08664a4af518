"""The page that makes videos, in a real Chromium: with the network switched off it makes the clip that Python makes, and its
judge reads it right. `make browser`

Screenshots are kept in build/try-screens: look at them after a change.
"""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from lab_page import CHROMIUM
from try_site import SOFTWARE_WEBGPU, chromium, make, opened, served

pytest.importorskip("playwright")
pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "build/try-screens"
PROMPT = "a large red circle moves left slowly"
WANTED = {"shape": "circle", "colour": "red", "size": "large", "motion": "left", "speed": "slowly"}
MOST_BYTES = 16e6

# the frames of the clip, as the canvas shows them
FRAMES = """() => {
  const slider = document.querySelector("#clip input[type=range]"), canvas = document.querySelector("#clip canvas");
  return Array.from({ length: +slider.max + 1 }, (_, i) => {
    slider.value = i;
    slider.dispatchEvent(new Event("input"));
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
  });
}"""

# what can be seen or used, and has no name that is read out
NAMELESS = """(root) => [...root.querySelectorAll("canvas, input, button, select, progress")]
  .filter((node) => !node.ariaLabel && !node.labels?.length && !node.textContent).map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def try_page():
    sys.path.insert(0, str(ROOT / "scripts"))
    import try_page

    sys.path.remove(str(ROOT / "scripts"))
    return try_page


@pytest.fixture(scope="module")
def folder(try_page, tmp_path_factory):
    SCREENS.mkdir(parents=True, exist_ok=True)
    return try_page.build(tmp_path_factory.mktemp("page") / "try")


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def clip():
    """(seed, pixels): the first clip of PROMPT that mini, in Python, makes right."""
    import minit2v
    from minit2v.evaluation.judge import read

    pipe = minit2v.load("mini", device="cpu", dtype="float32")
    for seed in range(8):
        pixels = pipe(PROMPT, seed=seed).pixels
        if asdict(read(pixels)) == WANTED:
            return seed, pixels
    pytest.fail("mini makes nothing right of eight clips")


@pytest.fixture(scope="module")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def page(playwright, address):
    with chromium(playwright) as browser:
        page = opened(browser, address, reduced_motion="reduce", color_scheme="light")
        yield page
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith((address, "blob:", "data:"))] == []


def shown(page) -> np.ndarray:
    height, width = (page.locator("#clip canvas").evaluate(f"(canvas) => canvas.{side}") for side in ("height", "width"))
    return np.array(page.evaluate(FRAMES), np.uint8).reshape(-1, height, width, 4)[..., :3]


def test_the_download_is_small(try_page, folder):
    assert max(try_page.downloads(folder).values()) <= MOST_BYTES


def test_without_a_network_it_makes_the_clip_that_python_makes(page, clip):
    seed, expected = clip
    page.context.set_offline(True)
    make(page, PROMPT, seed)
    assert np.abs(shown(page).astype(int) - expected.astype(int)).max() <= 2
    read = page.locator("#reading td:last-child").all_text_contents()
    assert read == [f"{value}, right" for value in WANTED.values()]
    assert page.locator("#verdict").inner_text() == "5 of 5 that the prompt asks for are right."
    page.context.set_offline(False)


def test_every_step_can_be_looked_at(page):
    scrubber = page.get_by_role("group", name="latent scrubber")
    step, look = scrubber.get_by_role("slider", name="step"), lambda: scrubber.evaluate(
        '(root) => [...root.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join()')  # fmt: skip
    step.focus()
    page.keyboard.press("Home")
    looks = {look()}
    for _ in range(11):
        page.keyboard.press("ArrowRight")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        looks.add(look())
    assert len(looks) == 12 and step.get_attribute("aria-valuetext").startswith("12 of 12")


def test_an_unknown_word_is_named_in_one_line(page):
    page.fill("#prompt", "a red dgo moves left")
    page.keyboard.press("Enter")
    trouble = page.locator("#trouble")
    assert "“dgo”" in trouble.inner_text() and page.locator("#prompt").get_attribute("aria-invalid") == "true"
    page.fill("#prompt", PROMPT)
    page.fill("#steps", "0")
    page.keyboard.press("Enter")
    assert trouble.inner_text() == "steps: expected a whole number from 1 to 50."
    page.fill("#steps", "12")
    page.keyboard.press("Tab")


def test_a_clip_plays_until_paused_unless_motion_is_reduced(page, address):
    assert page.locator("#clip .mt-button").get_attribute("aria-label") == "play the clip"
    page.emulate_media(reduced_motion="no-preference")
    page.fill("#steps", "1")
    make(page, PROMPT)
    button = page.locator("#clip .mt-button")
    assert button.get_attribute("aria-label") == "pause"
    button.click()
    assert button.get_attribute("aria-label") == "play the clip"
    page.emulate_media(reduced_motion="reduce")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(page, width, colours):
    page.emulate_media(color_scheme=colours, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=SCREENS / f"{width}-{colours}.png", full_page=True)
    assert page.locator("main").evaluate(NAMELESS) == []


def test_with_webgpu_it_makes_the_same(playwright, address):
    """On a card that the processor emulates, which is slow: one step."""
    import minit2v

    expected = minit2v.load("mini", device="cpu", dtype="float32")(PROMPT, seed=1, steps=1).pixels
    with chromium(playwright, *SOFTWARE_WEBGPU) as browser:
        page = opened(browser, address + "?device=webgpu", reduced_motion="reduce")
        if "WebGPU" not in page.locator("#facts").inner_text():
            pytest.skip("needs a Chromium that can emulate WebGPU")
        page.fill("#steps", "1")
        make(page, PROMPT, seed=1)
        assert np.abs(shown(page).astype(int) - expected.astype(int)).max() <= 2


def test_a_page_that_lacks_a_file_says_so(playwright, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "try")
    (tmp_path / "try/model/unet.onnx.gz").unlink()
    with served(tmp_path / "try") as address, chromium(playwright) as browser:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#trouble:visible")
        assert "model/unet.onnx.gz: expected a file of this page, found status 404" in page.locator("#trouble").inner_text()
