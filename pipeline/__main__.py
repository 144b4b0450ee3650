"""The command line, ``python -m pipeline <command>``: thin, and quick to start (each stage of DVC is one start)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from pipeline.utils import signals
from pipeline.utils.errors import FailedError, UserError

USAGE = 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    from pipeline import cli

    top = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Reproduce 'Residual Attention Network for Image Classification' (arXiv:1704.06904).",
    )
    subparsers = top.add_subparsers(metavar="<command>", required=True)
    for add in cli.ALL:
        add(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status.

    That is 0 when it did what was asked for, 1 when something failed, 2 for a mistake of the user, 75 for a run paused
    inside a stage, and 128 plus the number of the signal that interrupted it.
    """
    if arguments is None:
        signals.raise_on_termination()
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(f"error: {os.fsdecode(error.filename)}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("interrupted; the same command continues", file=sys.stderr)
        return 128 + (error.number if isinstance(error, signals.Interrupted) else signal.SIGINT)


def _run(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    if arguments is None and getattr(options, "in_process", False):
        from pipeline.training import huge_pages

        huge_pages.start_again()
    if arguments is None and "DVC_STAGE" in os.environ:
        signals.terminate_with_parent()
    return int(options.run(options) or 0)


if __name__ == "__main__":
    sys.exit(main())
