"""Commands about the networks on their own: what they consist of, and their way out of here."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.options import REPORTS, Commands, add_command, positive
from pipeline.utils.errors import UserError


def _counts(commands: Commands) -> None:
    add_command(commands, "counts", _run_counts, "count parameters and multiply-adds of every network")


def _run_counts(options: argparse.Namespace) -> None:
    from pipeline.report.counts import write_counts

    print(write_counts(REPORTS / "counts"))


def _describe(commands: Commands) -> None:
    command = add_command(commands, "describe", _run_describe, "print the layers of a network")
    command.add_argument("network", help="a name of models.list_models(), e.g. cifar_attention92")
    command.add_argument("--image-size", type=positive, metavar="PIXELS", help="default: the paper's")


def _run_describe(options: argparse.Namespace) -> None:
    from models.summary import describe

    try:
        print(describe(options.network, image_size=options.image_size))
    except ValueError as error:
        raise UserError(str(error)) from None


def _export(commands: Commands) -> None:
    command = add_command(commands, "export", _run_export, "write a trained network as ONNX")
    command.add_argument(
        "trained", help="a run of the plan (e.g. attention56-s0), a run's folder, or a file of weights (*.safetensors)"
    )
    command.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    command.add_argument(
        "--image-size", type=positive, metavar="PIXELS", help="default: that of the run, else the network's own"
    )


def _run_export(options: argparse.Namespace) -> None:
    from pipeline.runs.export import export

    exported = export(options.trained, options.onnx, options.image_size, Path.cwd())
    print(f"{options.onnx}: {exported}")


COMMANDS = (_counts, _describe, _export)
