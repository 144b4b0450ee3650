"""The pages in headless Chromium, at phone and desktop width: nothing overflows, nothing is missing or broken.

Spoken in the WebDriver protocol to chromedriver, with the standard library alone. `CHROMIUM` and `CHROMEDRIVER` name
the programs where they are not on the path.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import build_index

WIDTHS = {"phone": 390, "desktop": 1280}
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

OVERFLOW = """
const wide = [...document.querySelectorAll("body *")].filter((element) =>
  element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
  && !element.closest(".scroll, nav, svg, dialog, code"));
const shown = document.documentElement;
return [shown.scrollWidth - shown.clientWidth, wide.map((element) => element.outerHTML.slice(0, 120))];
"""
MISSING = """
const pictures = [...document.images].filter((image) => !image.complete || image.naturalWidth === 0);
const empty = [...document.querySelectorAll("figure svg")].filter((svg) => svg.getBoundingClientRect().height < 50);
return [...pictures, ...empty].map((element) => element.outerHTML.slice(0, 120));
"""
LINKS = """
return [...document.querySelectorAll("a[href]")].map((link) => link.href);
"""
ANCHORS = """
return [...document.querySelectorAll("a[href^='#']")].map((link) => link.getAttribute("href").slice(1))
  .filter((id) => !document.getElementById(id));
"""


class Browser:
    """One WebDriver session."""

    def __init__(self, address: str, chromium: str, profile: Path, width: int) -> None:
        options = {
            "binary": chromium,
            "args": [*ARGUMENTS, f"--user-data-dir={profile}"],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": 900, "pixelRatio": 1.0, "mobile": False}},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.address = address
        answer = self.post("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        request = urllib.request.Request(
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self.post(f"{self.session}/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        return self.post(f"{self.session}/execute/sync", {"script": script, "args": []})

    def log(self) -> list[dict[str, Any]]:
        """What the console said since it was last asked."""
        return list(self.post(f"{self.session}/se/log", {"type": "browser"}))

    def close(self) -> None:
        self.post(self.session, {}, method="DELETE")


@pytest.fixture(scope="module")
def driver() -> Iterator[tuple[str, str]]:
    """Address of a running chromedriver, and the browser to start with it."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    program = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not chromium or not program:
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{address}/status", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield address, chromium
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS.keys())
def browser(driver: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    session = Browser(*driver, tmp_path / "profile", request.param)
    try:
        yield session
    finally:
        session.close()


def pages(built: Any) -> list[Path]:
    build_index(built.root / "reports")
    return [built.folder / "report.html", built.local / "report.html", built.root / "reports" / "index.html"]


@pytest.mark.slow
def test_the_pages_fit_and_nothing_is_missing(built: Any, browser: Browser) -> None:
    for page in pages(built):
        browser.open(page)
        too_wide, elements = browser.run(OVERFLOW)
        assert (too_wide, elements) == (0, []), page
        assert browser.run(MISSING) == [], page
        assert browser.run(ANCHORS) == [], page
        for link in browser.run(LINKS):
            if link.startswith("file://"):
                assert Path(link.removeprefix("file://").split("#")[0]).is_file(), link
        assert browser.log() == [], page


@pytest.mark.slow
def test_the_checks_see_what_they_look_for(built: Any, browser: Browser) -> None:
    browser.open(built.folder / "report.html")
    browser.run(
        'document.body.insertAdjacentHTML(\'beforeend\', \'<div style="width:3000px">wide</div><img src="none.png">'
        "<a href=\"#nowhere\">x</a>'); console.error('said aloud');"
    )
    time.sleep(0.5)  # the picture is looked for
    assert browser.run(OVERFLOW)[0] > 1000
    assert len(browser.run(OVERFLOW)[1]) == 1
    assert len(browser.run(MISSING)) == 1
    assert browser.run(ANCHORS) == ["nowhere"]
    assert any("said aloud" in entry["message"] for entry in browser.log())


@pytest.mark.slow
def test_a_click_on_a_number_shows_what_trace_prints(built: Any, browser: Browser) -> None:
    browser.open(built.folder / "report.html")
    browser.run("document.querySelector('[data-cell=\"table3/attention92/nal\"]').click()")
    shown = browser.run("return document.querySelector('dialog[open]').innerText")
    assert "table3/attention92/nal" in shown
    assert built.built_plan["identity"]["attention92-nal-s1"] in shown
    assert "python -m pipeline train attention92-nal --seed 1" in shown
    too_wide, _ = browser.run(OVERFLOW)
    assert too_wide == 0
    assert browser.log() == []


@pytest.mark.slow
def test_a_click_on_a_header_sorts_numbers_as_numbers_and_leaves_holes_at_the_end(built: Any, browser: Browser) -> None:
    browser.open(built.folder / "report.html")
    click = "document.querySelectorAll('#runs + .scroll thead button')[5].click();"
    read = "return [...document.querySelectorAll('#runs + .scroll tbody tr')].map((row) => +row.cells[5].textContent)"
    up, down = browser.run(click + read), browser.run(click + read)
    assert up == sorted(up) and len(up) == 56
    assert down == up[::-1]
    click = "document.querySelectorAll('#table4 ~ .scroll thead button')[2].click();"
    read = "return [...document.querySelectorAll('#table4 ~ .scroll tbody tr')].map((row) => row.cells[2].innerText)"
    for _ in range(2):
        assert "pending" in browser.run(click + read)[-1]


@pytest.mark.slow
def test_the_page_turns_dark_and_light(built: Any, browser: Browser) -> None:
    browser.open(built.folder / "report.html")
    colour = "return getComputedStyle(document.body).backgroundColor"
    toggle = "document.getElementById('theme').click();"
    first, second, third = browser.run(colour), browser.run(toggle + colour), browser.run(toggle + colour)
    assert first == third != second
