"""The rules for names that enter from outside and become part of a path or of a page.

`checked_name` is for the files, classes and folders of others; `checked_plain_name`, the stricter one, for what
settings may name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.utils.errors import UserError, shown

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")  # of profiles, experiments and data sets

LONGEST = 255  # bytes of a file name on common file systems
REFUSED = frozenset('/\\<>"')  # separators of paths, and what could end an HTML attribute or open a tag


def checked_name(value: Any, what: str) -> str:
    """Return `value` if it is safe as one part of a path and as text on a page.

    Args:
        value: what a file, an archive, a folder listing or a tag gave as a name.
        what: names the place it comes from, at the start of the message.

    Raises:
        UserError: for anything but a string of 1 to 255 bytes without separators, markup, control or invisible
            characters, surrounding blanks, ".", and "..".
    """
    if problem := _problem(value):
        raise UserError(
            f'{what}: {shown(value)} {problem}; a name has 1 to {LONGEST} bytes, without any of / \\ < > " and control'
            ' characters, and is neither "." nor ".."'
        )
    assert isinstance(value, str)
    return value


def _problem(value: Any) -> str | None:
    """Return why `value` is not a safe name, None if it is one."""
    if not isinstance(value, str):
        return f"is of type {type(value).__name__}, not a string"
    problems = {
        # Control and format characters, and surrogates that stand for bytes of no known encoding.
        "has a control character, or bytes that are not text": not value.isprintable(),
        "is empty": not value,
        "begins or ends with a blank": value != value.strip(),
        "leads out of its folder": value in (".", ".."),
        "has a separator or markup in it": not REFUSED.isdisjoint(value),
        "is too long": len(value.encode(errors="replace")) > LONGEST,
    }
    return next((text for text, found in problems.items() if found), None)


def checked_plain_name(value: Any, what: str | Path) -> str:
    """Return `value` if it is a name that settings may have for a profile, an experiment, a network or a data set.

    It then is also safe in an address and in a query.

    Raises:
        UserError: for anything else, beginning with `what`.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value) or len(value) > LONGEST:
        raise UserError(
            f"{what}: {shown(value)} is not a name: 1 to {LONGEST} lower-case letters, digits, '-' and '_', not first"
        )
    return value


def did_you_mean(wrong: str, names: Iterable[str], least: float = 0.6) -> str:
    """Return "did you mean 'x'?" for the most similar name, or nothing where none is similar.

    Args:
        wrong: what was given.
        names: what is allowed.
        least: the similarity that is needed, from 0 (the nearest name in any case) to 1 (equal).
    """
    near = difflib.get_close_matches(wrong, list(names), n=1, cutoff=least)
    return f"did you mean {near[0]!r}?" if near else ""


def checked_path(value: Any, what: str) -> str:
    """Return `value` if it is a relative path, with "/" between its parts, each of which is a safe name.

    Raises:
        UserError: for anything else; an absolute path has an empty first part.
    """
    for part in value.split("/") if isinstance(value, str) else [value]:
        checked_name(part, what if part == value else f"{what} {value!r:.200}")
    assert isinstance(value, str)
    return value
