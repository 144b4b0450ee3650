"""Commands about networks: their sizes and layers, and the use of trained ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.options import DATA, REPORTS, Commands, add_command, positive
from pipeline.utils.errors import UserError


def _counts(commands: Commands) -> None:
    command = add_command(commands, "counts", _run_counts, "count parameters and multiply-adds of every network")
    command.add_argument("--json", action="store_true", help="print the table as JSON; no file is written")


def _run_counts(options: argparse.Namespace) -> None:
    from pipeline.report.counts import counts_json, write_counts
    from pipeline.settings.counts import NetworkCounts

    known = NetworkCounts(DATA)
    if options.json:
        print(counts_json(known))
    else:
        print(write_counts(REPORTS / "counts", known))


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


TRAINED = "a run of the plan (e.g. attention56-s0), a run's folder or its name, or a file of weights (*.safetensors)"


def _export(commands: Commands) -> None:
    command = add_command(commands, "export", _run_export, "write a trained network as ONNX, or for the model hub")
    command.add_argument("trained", help=TRAINED)
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("--onnx", type=Path, metavar="FILE", help="ONNX file to write; it takes uint8 images")
    target.add_argument("--hub", type=Path, metavar="FOLDER", help="folder to write for the Hugging Face hub")
    command.add_argument("--float-images", action="store_true", help="ONNX without normalisation, for float images")
    command.add_argument(
        "--image-size", type=positive, metavar="PIXELS", help="of ONNX; default: that of the run, else the network's"
    )


def _run_export(options: argparse.Namespace) -> None:
    from pipeline.runs.export import export_hub, export_onnx

    if options.hub is not None and (options.float_images or options.image_size is not None):
        raise UserError("--float-images and --image-size: only with --onnx")
    weights = find_weights(options.trained, Path.cwd())
    if options.hub is not None:
        export_hub(weights, options.hub)
        print(options.hub)
    else:
        exported = export_onnx(weights, options.onnx, options.image_size, not options.float_images)
        print(f"{options.onnx}: {exported}")


def _predict(commands: Commands) -> None:
    command = add_command(commands, "predict", _run_predict, "classify images and draw the attention masks over them")
    command.add_argument("trained", help=TRAINED)
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files of any size")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the masks; default: beside each image")
    command.add_argument("--top", type=positive, default=5, metavar="N", help="classes to print; default: 5")


def _run_predict(options: argparse.Namespace) -> None:
    from pipeline.runs.predict import predict

    for line in predict(find_weights(options.trained, Path.cwd()), options.images, options.out, options.top):
        print(line)


def find_weights(trained: str, root: Path) -> Path:
    """Return the file of weights that a name on the command line means; UserError when there is none.

    Args:
        trained: name of a run of the plan, a run's folder or its name in the store, or a file of weights.
        root: folder of the project.
    """
    from pipeline.runs.export import weights_in

    path = Path(trained)
    if path.is_file():
        return path
    if path.is_dir():
        return weights_in(path)

    from pipeline.launch.driver import Driver
    from pipeline.runs.store import PUBLISHED
    from pipeline.settings.plan import PLAN, Plan

    plan = Plan.read(root / PLAN) if (root / PLAN).exists() else None
    if plan is not None and trained not in plan.runs and Path(trained).name == trained:
        for folder in (Driver(plan, root).store, *sorted((root / PUBLISHED).glob("*"))):
            if (folder / trained).is_dir():
                return weights_in(folder / trained)
    if plan is None or trained not in plan.runs:
        runs = f" nor one of the runs {', '.join(plan.runs)}" if plan else f", and there is no {PLAN} to name a run"
        raise UserError(f"{trained!r}: neither a file of weights nor a run's folder{runs}")
    driver = Driver(plan, root)
    driver.fetch(weights=True)
    return weights_in(driver.store / plan.runs[trained].spec.folder_name)


COMMANDS = (_counts, _describe, _export, _predict)
