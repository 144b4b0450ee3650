"""Names from outside: one rule for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.utils.errors import UserError
from pipeline.utils.names import checked_name, checked_path

BAD = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "/etc",
    "a\\b",
    "a\nb",
    "a\x00",
    "\x1b[31m",
    "\u202egnp",
    "<b>",
    'a"b',
    " a",
    "a\udcff",
]
OTHER_TYPES: list[Any] = [None, 3, True, 1.5, ["a"], {"a": 1}, b"a"]


@pytest.mark.parametrize("value", ["a", "n01440764", "aquarium_fish", "..a", "a..b", "Spaß & (2).JPEG", "x" * 255])
def test_a_plain_name_is_returned_as_it_is(value: str) -> None:
    assert checked_name(value, "here") == value


@pytest.mark.parametrize("value", [*BAD, "x" * 256, "ä" * 128, *OTHER_TYPES], ids=ascii)
def test_a_name_that_could_leave_its_folder_or_change_a_page_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(UserError, match=r"^manifest\.json: .*; a name has 1 to 255 bytes") as caught:
        checked_name(value, "manifest.json")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["/a", "a/", "a//b", "../a", "a/../b", "a/./b", "", "a/\n", 7, None], ids=ascii)
def test_a_path_that_is_absolute_or_climbs_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^files\.csv"):
        checked_path(value, "files.csv")
    assert checked_path("train/n01440764/a.JPEG", "files.csv") == "train/n01440764/a.JPEG"


@given(st.text())
def test_whatever_passes_stays_below_its_folder(value: str) -> None:
    try:
        name = checked_path(value, "here")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        folder = Path("/folder")
        assert (folder / name).resolve().is_relative_to(folder) and (folder / name) != folder
