"""Text from files and folders, as it may stand on a terminal, on a page of Markdown and in a spreadsheet."""

from __future__ import annotations

import re
from typing import Any

from pipeline.utils.errors import printable

# C0 and C1 except tab and line feed, what turns the direction of writing, and bytes that are no text (surrogates).
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKUP = re.compile(r"([\\`*_|<>\[\]])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is computed by spreadsheets


class Markdown(str):
    """Text that is Markdown already: whatever came from outside is escaped in it."""

    __slots__ = ()


def without_controls(text: str) -> str:
    """Return a text with its control characters replaced by their escape sequences; tabs and line breaks stay."""
    return CONTROLS.sub(lambda match: printable(match[0]), text)


def markdown(text: object) -> Markdown:
    """Return text that becomes no markup in Markdown and cannot leave the cell of a table."""
    if isinstance(text, Markdown):
        return text
    return Markdown(_MARKUP.sub(r"\\\1", without_controls(str(text)).replace("\n", " ")))


def markdown_code(text: object) -> Markdown:
    """Return text between backticks, which it cannot leave."""
    return Markdown("`" + without_controls(str(text)).replace("`", "'").replace("\n", " ") + "`")


def spreadsheet_cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file: text that a spreadsheet would compute begins with an apostrophe.

    Line breaks and control characters in text are escaped; numbers, also those that are written as text, stay.
    """
    if not isinstance(value, str):
        return value
    text = without_controls(value).replace("\n", "\\n").replace("\t", "\\t")
    return f"'{text}" if value.startswith(_FORMULA) and not _is_number(value) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
