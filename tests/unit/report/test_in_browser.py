"""The pages in headless Chromium, at phone and desktop width: nothing overflows, nothing is missing or broken."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import build_index
from pipeline.report.trace import trace
from tests import browser as browsers
from tests.browser import Browser

WIDTHS = {"phone": 390, "desktop": 1280}

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


@pytest.fixture(params=list(WIDTHS.values()), ids=list(WIDTHS))
def browser(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    if browsers.programs() is None:
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    with browsers.browser(tmp_path / "profile", request.param, 900, exact=True) as window:
        yield window


def pages(built: Any) -> list[Path]:
    build_index(built.root / "reports")
    return [built.folder / "report.html", built.local / "report.html", built.root / "reports" / "index.html"]


@pytest.mark.slow
def test_the_pages_fit_and_nothing_is_missing(built: Any, browser: Browser) -> None:
    for page in pages(built):
        browser.open(page.as_uri())
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
    browser.open((built.folder / "report.html").as_uri())
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
    browser.open((built.folder / "report.html").as_uri())
    browser.run("document.querySelector('[data-cell=\"table3/attention92/nal\"]').click()")
    shown = browser.run("return document.querySelector('dialog[open]').innerText")
    assert "table3/attention92/nal" in shown
    assert built.built_plan.runs["attention92-nal-s1"].identity in shown
    assert "python -m pipeline train attention92-nal --seed 1" in shown
    too_wide, _ = browser.run(OVERFLOW)
    assert too_wide == 0
    assert browser.log() == []


@pytest.mark.slow
def test_where_the_runs_were_made_the_click_shows_their_machine_and_mlflow_run_too(
    built: Any, browser: Browser
) -> None:
    browser.open((built.folder / "report.html").as_uri())
    shown = click(browser, "table3/attention92/nal", until="a" * 32)
    printed = trace(built.built_plan, built.sources, "table3/attention92/nal", built.root / "counts")
    for line in filter(None, printed.splitlines()):
        assert re.split(" {2,}", line, maxsplit=1)[-1] in shown, line
    links = browser.run("return [...document.querySelectorAll('dialog[open] a')].map((link) => link.href)")
    assert links == [f"http://127.0.0.1:5000/#/runs/{'a' * 32}"]
    assert browser.log() == []


@pytest.mark.slow
def test_elsewhere_the_click_says_where_to_ask_and_misses_nothing(built: Any, browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(built.folder, tmp_path / "digits")
    browser.open((tmp_path / "digits/report.html").as_uri())
    for cell in ("table3/attention92/nal", "claims/arl-beats-nal-92"):
        shown = click(browser, cell, until=f"python -m pipeline trace {cell}")
        assert built.built_plan.runs["attention92-nal-s0"].identity in shown
    time.sleep(1)  # whatever was looked for has not been found by now
    assert browser.log() == []
    assert "commit" in browser.run("return document.querySelector('dialog[open]').innerText")


def click(browser: Browser, cell: str, until: str) -> str:
    """The text of the dialog that a click on a number opens, once it has the words `until`."""
    browser.run(f"document.querySelector('[data-cell=\"{cell}\"]').click()")
    for _ in range(50):
        shown = str(browser.run("return document.querySelector('dialog[open]').textContent"))
        if until in shown:
            return shown
        time.sleep(0.1)
    raise AssertionError(f"{until!r} does not appear in {shown}")


@pytest.mark.slow
def test_a_click_on_a_header_sorts_numbers_as_numbers_and_leaves_holes_at_the_end(built: Any, browser: Browser) -> None:
    browser.open((built.folder / "report.html").as_uri())
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
    browser.open((built.folder / "report.html").as_uri())
    colour = "return getComputedStyle(document.body).backgroundColor"
    toggle = "document.getElementById('theme').click();"
    first, second, third = browser.run(colour), browser.run(toggle + colour), browser.run(toggle + colour)
    assert first == third != second
