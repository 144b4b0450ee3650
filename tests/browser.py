"""Headless Chromium, driven over the WebDriver protocol with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


def programs() -> tuple[str, str] | None:
    """Chromium and chromedriver (the environment may name them); None where one is missing."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


class Browser:
    """One window. `exact` sets the size of the page itself: a window cannot be narrower than 500 pixels."""

    def __init__(self, address: str, chromium: str, profile: Path, width: int, height: int, *, exact: bool) -> None:
        arguments = [*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        options: dict[str, Any] = {"binary": chromium, "args": arguments}
        if exact:
            metrics = {"width": width, "height": height, "pixelRatio": 1.0, "mobile": False}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._address = address
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script of JavaScript returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: Any, seconds: float = 120) -> Any:
        """Run a script until it returns something true; what it returned."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < deadline, f"never true: {script}\n{self.text()[:3000]}"
            time.sleep(0.5)
        return value

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.run("return document.body.innerText"))

    def log(self) -> list[dict[str, Any]]:
        """What the console said since it was last asked."""
        return list(self._call("POST", f"{self._session}/se/log", {"type": "browser"}))

    def picture(self, path: Path) -> None:
        """Save what the window shows as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._call("GET", f"{self._session}/screenshot")))

    def close(self) -> None:
        """Close the window."""
        self._call("DELETE", self._session)


@contextmanager
def browser(profile: Path, width: int = 1400, height: int = 1000, *, exact: bool = False) -> Iterator[Browser]:
    """A browser of its own, with its driver."""
    found = programs()
    assert found is not None, "needs Chromium and chromedriver (Debian: chromium, chromium-driver)"
    chromium, driver = found
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(f"http://127.0.0.1:{port}/status")
        window = Browser(f"http://127.0.0.1:{port}", chromium, profile, width, height, exact=exact)
        try:
            yield window
        finally:
            window.close()
    finally:
        process.terminate()
        process.wait()


def _await(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"{url} never answered"
            time.sleep(0.1)
