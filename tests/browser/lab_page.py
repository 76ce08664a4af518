"""A JupyterLab of its own and a headless Chromium that looks at it.

    with Browser(folder) as browser:
        notebook = browser.open("00_take_off.ipynb")
        notebook.run_all()
        notebook.page …                     # a playwright page
        notebook.evaluate("widget.step")    # what the kernel says

Everything lives in the given folder: settings, workspaces and runtime files of the reader's own Jupyter are untouched.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                  "--disable-sync", "--no-first-run", "--disable-dev-shm-usage")
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # it would cover the widgets
    "apputils-extension/themes": {"theme": "JupyterLab Light"},
    # with the default, outputs off the screen are not in the page
    "notebook-extension/tracker": {"autoStartDefault": True, "windowingMode": "none"},
}
PATIENCE = 600  # seconds, for whatever a slow machine takes


def wait_for(what, condition, seconds=PATIENCE):
    """condition() as soon as it is true. Raises AssertionError that says what was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


class Browser:
    """JupyterLab on a free port, serving `folder`, and a page of Chromium; both end with the `with` block."""

    def __init__(self, folder, theme="JupyterLab Light", size=(1400, 1000)):
        self.folder, self.theme, self.size = Path(folder), theme, size

    def __enter__(self):
        from playwright.sync_api import sync_playwright

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.state = state = self.folder / ".jupyter-state"
        self._write_settings(state / "JUPYTERLAB_SETTINGS_DIR")
        names = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR",
                 "IPYTHONDIR")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                   f"--port={self.port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={self.folder}"]
        self.log = open(self.folder / ".jupyter.log", "w")
        self.server = subprocess.Popen(command, env=os.environ | {name: str(state / name) for name in names},
                                       stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_for("JupyterLab", lambda: self.api("status"))
            self.playwright = sync_playwright().start()
            self.chromium = self.playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        except BaseException:
            self._end_server()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.chromium.close()
            self.playwright.stop()
        finally:
            self._end_server()

    def _end_server(self):
        os.killpg(self.server.pid, signal.SIGTERM)  # its own session: kernels included, and nothing else
        try:
            self.server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.server.pid, signal.SIGKILL)
        self.log.close()

    def _write_settings(self, folder):
        settings = SETTINGS | {"apputils-extension/themes": {"theme": self.theme}}
        for name, values in settings.items():
            file = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))

    def api(self, path):
        """What the server answers to a GET, or None while it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def open(self, notebook):
        """The notebook of that name in `folder`, with a kernel that is ready."""
        page = self.chromium.new_page(viewport=dict(zip(("width", "height"), self.size)))
        page.set_default_timeout(PATIENCE * 1000)
        opened = Notebook(page, self)
        page.goto(f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        opened.wait_until_idle()  # Run All before that would ask for a kernel and wait forever
        return opened


class Notebook:
    """An open notebook: `page`, and `complaints`, the errors that its page wrote to the console."""

    def __init__(self, page, browser):
        self.page, self.browser, self.complaints, self.requests = page, browser, [], []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def state(self):
        """"idle" or "busy" as soon as the page is connected to its kernel, else None."""
        kernels = [kernel for kernel in self.browser.api("kernels") or [] if kernel["connections"]]
        return kernels[-1]["execution_state"] if kernels else None

    def wait_until_idle(self):
        wait_for("an idle kernel", lambda: self.state() == "idle")
        self.page.wait_for_selector("text=| Idle")

    def run_all(self):
        """Run all cells and wait for the last one's number."""
        self.menu("Run", "Run All Cells")
        prompts = self.page.locator(".jp-CodeCell .jp-InputPrompt")
        wait_for("all cells to begin", lambda: "[*]" in prompts.all_inner_texts()[-1] or self.state() == "idle")
        wait_for("all cells", lambda: not any("*" in text for text in prompts.all_inner_texts()))
        self.wait_until_idle()

    def evaluate(self, expression):
        """The `repr` of a Python expression in the kernel."""
        answer = self.client.execute_interactive("", user_expressions={"value": expression}, timeout=PATIENCE)
        return answer["content"]["user_expressions"]["value"]["data"]["text/plain"]

    @contextmanager
    def silent_kernel(self):
        """The kernel's process stands still: busier than any cell, as recent kernels answer widgets beside a cell."""
        pid = int(self.evaluate("__import__('os').getpid()"))
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @cached_property
    def client(self):
        """A second line to the kernel, besides the page's."""
        from jupyter_client import BlockingKernelClient

        kernel = [kernel for kernel in self.browser.api("kernels") if kernel["connections"]][-1]
        file = self.browser.state / f"JUPYTER_RUNTIME_DIR/kernel-{kernel['id']}.json"
        client = BlockingKernelClient(connection_file=str(file))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(PATIENCE)
        return client

    def menu(self, name, entry):
        self.page.locator(".lm-MenuBar-itemLabel", has_text=name).first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text=entry).first.click()
