"""Exceptions that the command line prints as one line, and how values and other exceptions are shown in a message."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: one line that names the key or file, the value, and what is allowed.

    The command line prints it as ``error: <message>`` and exits with status 2. Line breaks and control characters,
    which a damaged file may bring into a message, are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Return a text with everything that a terminal would not print as it is replaced by its escape sequence."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object, limit: int = 80) -> str:
    """Return how a value stands in a message: its repr, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 4 * limit:
        return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"  # Python refuses to print a very long one
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class FailedError(Exception):
    """A failure that is not a mistake in what the user typed: one line, exit status 1."""


def one_line(error: BaseException) -> str:
    """Return what an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
