"""The command line, ``python -m pipeline <command>``: thin, and quick to start (each stage of DVC is one start)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pipeline import cli
from pipeline.training import huge_pages
from pipeline.utils.errors import UserError

USAGE, INTERRUPTED = 2, 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Reproduce 'Residual Attention Network for Image Classification' (arXiv:1704.06904).",
    )
    subparsers = top.add_subparsers(metavar="<command>", required=True)
    for add in cli.ALL:
        add(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status: 0 done, 1 something failed, 2 a user's mistake, 75 paused inside a stage."""
    options = parser().parse_args(arguments)
    if arguments is None and getattr(options, "in_process", False):
        huge_pages.start_again()
    try:
        return int(options.run(options) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(f"error: {os.fsdecode(error.filename)}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
