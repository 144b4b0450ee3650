"""Exceptions that the command line prints as one line, and how to put the message of another one into them."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: one line that names the key or file, the value, and what is allowed.

    The command line prints it as ``error: <message>`` and exits with status 2.
    """


class FailedError(Exception):
    """A failure that is not a mistake in what the user typed: one line, exit status 1."""


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
