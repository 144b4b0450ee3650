"""The one exception that a user's mistake raises."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: one line that names the key or file, the value, and what is allowed.

    The command line prints it as ``error: <message>`` and exits with status 2.
    """
