"""What the commands share: how one is entered, and how its options are read."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA, REPORTS = Path("data"), Path("reports")
Commands = Any  # argparse's own type for subparsers is private


def add_command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], help_: str) -> Any:
    """Enter a command: `run` gets its options, `help_` is a phrase without a full stop."""
    command = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    command.set_defaults(run=run)
    return command


def positive(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"0*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """A port of TCP."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a port, 1 to 65535")
    return int(text)


def minutes(text: str) -> float:
    """Minutes on the command line, seconds within."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of minutes above 0")
    return 60 * value
