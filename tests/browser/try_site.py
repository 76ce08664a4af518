"""The page that `make try` builds, served on loopback and opened in a headless Chromium.

    python tests/browser/try_site.py dist/try       seconds that it takes on one core: to load, to a first clip, to later ones

Measure on a machine that is otherwise idle.
"""

import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from lab_page import CHROMIUM, CHROMIUM_FLAGS, PATIENCE, wait_for

CLIPS = 5
SOFTWARE_WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


@contextmanager
def served(folder: Path):
    """The address of a folder that Python's own server gives to this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for("the server", lambda: _answers(address), 60)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def chromium(playwright, *flags: str):
    """A headless Chromium."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_FLAGS, *flags])
    yield browser
    browser.close()


def opened(browser, address: str, **options):
    """A page that has loaded its model; `requests` are the addresses that it asked for, `complaints` its errors."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.requests, page.complaints = [], []
    context.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("#go:enabled, #trouble:visible")
    assert page.locator("#trouble").is_hidden(), page.locator("#trouble").inner_text()
    return page


def make(page, prompt: str, seed: int = 0) -> float:
    """A clip, and the seconds that the page says it took."""
    page.fill("#prompt", prompt)
    page.fill("#seed", str(seed))
    page.click("#go")
    page.locator("#verdict:not(:empty)").wait_for()
    return float(re.search(r"Made in ([\d.]+) s", page.locator("#status").inner_text())[1])


def measure(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # and of all programs that it starts
    with served(folder) as address, sync_playwright() as playwright, chromium(playwright) as browser:
        began = time.perf_counter()
        page = opened(browser, address + "?device=wasm", reduced_motion="reduce")
        print(f"load: {time.perf_counter() - began:.1f} s")
        seconds = [make(page, "a large red circle moves left slowly", seed) for seed in range(CLIPS)]
        print(f"first clip: {seconds[0]:.1f} s; later ones: {statistics.median(seconds[1:]):.1f} s (median of {CLIPS - 1})")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "index.html").is_file() or CHROMIUM is None:
        sys.exit("expected the folder of a page that make try built, and the program chromium")
    measure(Path(sys.argv[1]))
