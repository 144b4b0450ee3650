"""The command line: `python -m pipeline <command>`, or `residual-attention <command>` once the project is installed.

Each command parses its options, calls the stage that does the work and prints the outcome. A command imports what it
needs when it runs, because each stage of DVC is a Python process of its own.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PYTHON = (3, 11)
FAILED, USAGE, SIGNALLED = 1, 2, 128
NO_PLACE = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)  # a path that no file can have
SHELLS = ("bash", "zsh", "tcsh")


def run_and_exit() -> None:
    """Run the command of `sys.argv` and exit with its status: the entry point of the console script."""
    if sys.version_info[:2] < PYTHON:  # before any import of modules that older versions cannot read
        wanted, found = (".".join(map(str, version[:2])) for version in (PYTHON, sys.version_info))
        sys.exit(
            f"error: this is Python {found} ({sys.executable}); {wanted} or newer is needed; type:"
            f" make repro PYTHON=python{wanted}, or source .venv/bin/activate where the environment exists"
        )
    sys.exit(main())


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    from pipeline.cli import benchmarking, data, networks, reporting, runs, training

    top = argparse.ArgumentParser(
        prog="residual-attention" if Path(sys.argv[0]).name == "residual-attention" else "python -m pipeline",
        description="Reproduce 'Residual Attention Network for Image Classification' (arXiv:1704.06904).",
    )
    top.add_argument(
        "--print-completion", action=_PrintCompletion, choices=SHELLS, help="print a completion script of this shell"
    )
    subparsers = top.add_subparsers(metavar="<command>", required=True)
    for group in (data, training, runs, reporting, networks, benchmarking):
        for add in group.COMMANDS:
            add(subparsers)
    return top


class _PrintCompletion(argparse.Action):
    """Print the completion script of a shell and exit."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        import shtab

        parser.prog = "residual-attention"  # shells complete the console command
        print(shtab.complete(parser, values))
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what it prints cannot control the terminal.

    Returns:
        The exit status: 0 done, 1 something failed, 2 a user's mistake, 75 paused inside a stage, and 128 plus the
        number of the signal that interrupted it.
    """
    from pipeline.utils.terminal import escaped_output

    with escaped_output():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    from pipeline.utils import signals
    from pipeline.utils.errors import FailedError, UserError, printable

    if arguments is None:
        signals.raise_on_termination()
    try:
        options = parser().parse_args(arguments)
        enter_project(options)
        bypass_proxies()
        if arguments is None and getattr(options, "in_process", False):
            from pipeline.training import huge_pages

            huge_pages.start_again()
        if arguments is None and "DVC_STAGE" in os.environ:
            signals.terminate_with_parent()
        return int(options.run(options) or 0)
    except (UserError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UserError) else FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "models", "pipeline"):
            raise
        print(
            f"error: {sys.executable} has no package {error.name!r}; type: make repro, which installs all packages"
            " into .venv, then source .venv/bin/activate",
            file=sys.stderr,
        )
        return FAILED
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(f"error: {printable(os.fsdecode(error.filename))}: {error.strerror}", file=sys.stderr)
        return USAGE if error.errno in NO_PLACE else FAILED
    except KeyboardInterrupt as error:
        print("interrupted; the same command continues", file=sys.stderr)
        return SIGNALLED + (error.number if isinstance(error, signals.Interrupted) else signal.SIGINT)


def enter_project(options: argparse.Namespace) -> None:
    """Change to the project folder that contains the working folder; paths among the options keep their meaning.

    Outside a project, nothing changes. A text is taken for a path where it has a separator and names what exists.
    """
    from pipeline.utils.project import is_project

    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if is_project(folder)), here)
    if root == here:
        return
    for name, value in vars(options).items():
        setattr(options, name, [_absolute(item) for item in value] if isinstance(value, list) else _absolute(value))
    os.chdir(root)


def bypass_proxies() -> None:
    """Have this process and its children reach this machine directly where the environment names a proxy."""
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        for name in ("no_proxy", "NO_PROXY"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost,127.0.0.1,::1"]))


def _absolute(value: Any) -> Any:
    if isinstance(value, str):
        return str(Path(value).absolute()) if os.sep in value and Path(value).exists() else value
    return value.absolute() if isinstance(value, Path) else value
