"""The index over reports of anybody: what cannot be read is named, and nothing of it becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import build_index

HOSTILE = "<img src=x onerror=alert(1)> **b** [l](javascript:x)\n| \x1b]0;title\x07\x9b31m"
GOOD: dict[str, Any] = {
    "profile": "other",
    "statement": "Another profile.",
    "standin": True,
    "reproduction": False,
    "runs": {"done": 5, "planned": 5},
    "claims": {"arl-beats-nal-56": {"verdict": "undecided", "n": 1}},
    "tables": {"table3": {"table3/attention56/nal": {"measured": 5.5, "seeds": [0], "basis": "digits"}}},
}


def index(root: Path, **changes: Any) -> str:
    """The three pages over one report."""
    path = root / "other" / "summary.json"
    path.parent.mkdir()
    path.write_text(json.dumps(GOOD | changes))
    build_index(root)
    return "\n".join((root / name).read_text() for name in ("index.md", "coverage.md", "index.html"))


def test_a_summary_of_an_earlier_version_is_in_the_index(tmp_path: Path) -> None:
    text = index(tmp_path)
    assert text.count("This report was made by an earlier version.") == 2
    assert "(other/report.md)" in text and "is not the summary" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"runs": 5},
        {"runs": {"done": "x"}},
        {"runs": {"done": -1}},
        {"iterations": "x"},
        {"iterations": 10**400},
        {"profile": []},
        {"profile": "../../../../tmp"},
        {"profile": "another"},
        {"claims": []},
        {"claims": {"arl-beats-nal-56": {"verdict": 5, "n": 1}}},
        {"tables": []},
        {"tables": {"table3": {"table3/attention56/nal": {"measured": "x", "seeds": [0], "basis": ""}}}},
        {"tables": {"table3": {"table3/attention56/nal": {"measured": 1e300}}}},
        {"tables": {"table3": {"table3/attention56/nal": {"measured": 5.5, "basis": None}}}},
        {"key_numbers": [5]},
    ],
)
def test_a_summary_that_cannot_be_read_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    text = index(tmp_path, **changes)
    key = next(iter(changes))
    assert text.count("other/summary.json") == 2
    assert f"is not the summary of a report: {key.replace('_', chr(92) + '_')}" in text
    assert "report.md)" not in text


def test_a_folder_in_place_of_a_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "other" / "summary.json").mkdir(parents=True)
    build_index(tmp_path)
    assert "`other/summary.json` is not the summary of a report: Is a directory" in (tmp_path / "index.md").read_text()


def test_nothing_of_a_summary_becomes_markup_or_controls_a_terminal(tmp_path: Path) -> None:
    number = dict.fromkeys(("experiment", "error", "half_width", "seeds"), HOSTILE)
    text = index(
        tmp_path,
        statement=HOSTILE,
        results=HOSTILE,
        key_numbers=[number],
        claims={"arl-beats-nal-56": {"verdict": HOSTILE, "n": 1}},
        tables={"table3": {"table3/attention56/nal": {"measured": 5.5, "basis": HOSTILE}}},
    )
    assert text.count("onerror=alert") >= 8
    markdown, html = text.split("<!doctype html>")
    for page, markup in ((markdown, r"(?<!\\)(<img|\*\*b|\[l)"), (html, "<img src=x"), (text, "[\x07\x1b\x9b]")):
        assert not re.search(markup, page), markup
