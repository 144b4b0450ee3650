"""Trained networks as ONNX files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from models import find_network
from pipeline.launch.driver import Driver
from pipeline.runs.records import CONFIG, WEIGHTS
from pipeline.settings.plan import PLAN, Plan
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json


def export(trained: str, target: Path, image_size: int | None, root: Path) -> str:
    """Write a trained network as ONNX; what was written, in words.

    trained: name of a run of the plan (`attention56-s0`), a run's folder, or a file of weights.
    image_size: height and width in pixels; None for that of the run, else the network's own.
    root: folder of the project.

    Raises UserError when there are no such weights, or the images are too small for the network.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx: needs {' and '.join(missing)}; python -m pip install {' '.join(missing)}")
    weights = find_weights(trained, root)
    if not target.parent.is_dir():
        raise UserError(f"--onnx {target}: there is no folder {target.parent}")

    from models.onnx_export import export_onnx
    from models.weights import load_model, read_configuration

    try:
        model = load_model(weights)
        name, classes = (read_configuration(weights)[key] for key in ("name", "num_classes"))
        size = image_size or _trained_size(weights) or find_network(name).image_size
        export_onnx(model, target, size)
    except ValueError as error:
        raise UserError(str(error)) from None
    reading = find_network(name).our_reading
    return (
        f"{name}, images [N, 3, {size}, {size}] normalised as in training -> scores [N, {classes}]"
        f"{f'; our reading: {reading}' if reading else ''}"
    )


def find_weights(trained: str, root: Path) -> Path:
    """The file of weights that a name on the command line means. Raises UserError when there is none."""
    path = Path(trained)
    if path.is_file():
        return path
    if path.is_dir():
        return _weights_in(path)
    plan = Plan.read(root / PLAN) if (root / PLAN).exists() else None
    if plan is None or trained not in plan.runs:
        runs = f" nor one of the runs {', '.join(plan.runs)}" if plan else f", and there is no {PLAN} to name a run"
        raise UserError(f"{trained!r}: neither a file of weights nor a run's folder{runs}")
    driver = Driver(plan, root)
    driver.fetch(weights=True)
    return _weights_in(driver.store / plan.runs[trained].spec.folder_name)


def _weights_in(folder: Path) -> Path:
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS}: no such file; only a finished run of the store has its weights")
    return folder / WEIGHTS


def _trained_size(weights: Path) -> int | None:
    """The image size of the run whose weights these are; None where no run's configuration lies beside them."""
    config = weights.with_name(CONFIG)
    if not config.is_file():
        return None
    try:
        return int(read_json(config)["data"]["image_size"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{config}: not a run's configuration; say --image-size") from None
