"""The one exception that a user's mistake raises, and how to put another one's message into it."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: one line that names the key or file, the value, and what is allowed.

    The command line prints it as ``error: <message>`` and exits with status 2.
    """


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
