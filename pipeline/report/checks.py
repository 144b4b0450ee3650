"""What the small files of a run must hold before a number is taken from them; anything else is a `DamagedError`."""

from __future__ import annotations

import csv
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json

HISTORY = ("epoch", "iteration", "learning_rate", "train_loss", "train_error", "test_loss", "test_error")
STORED = re.compile(r"(.+-s\d+)-([0-9a-f]{12})")
COLLECTED = re.compile(r"seed\d+")

_Kinds = Mapping[str, tuple[type, ...]]
_NUMBER = (int, float)
_OPTIONAL = type(None)
_CONFIG: _Kinds = {
    "identity": (str,),
    "experiment": (str,),
    "seed": (int,),
    "network.name": (str,),
    "data.dataset": (str,),
    "data.checksum": (str,),
    "protocol.iterations": (int,),
    "protocol.batch_size": (int,),
    "protocol.learning_rate": _NUMBER,
    "protocol.milestones": (list,),
    "numerics": (int,),
}
_COUNTS = ("iterations", "parameters", "multiply_adds", "test_images")
_METRICS = ("test_error", "train_error", "best_test_error", *_COUNTS)
_SEGMENT: _Kinds = {
    "from_iteration": (int, _OPTIONAL),
    "to_iteration": (int, _OPTIONAL),
    "seconds": (*_NUMBER, _OPTIONAL),
    "images_per_second": (*_NUMBER, _OPTIONAL),
    "gpus": (*_NUMBER, _OPTIONAL),
    "versions": (dict, _OPTIONAL),
}


class DamagedError(Exception):
    """A run folder cannot be used; the message says why in one line."""


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of a run folder."""
    if not (folder / name).is_file():
        raise DamagedError(f"{name} is missing")
    try:
        return read_json(folder / name)
    except (UserError, OSError, RecursionError):
        raise DamagedError(f"{name} is not a JSON object") from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, which must be that of the run after which the folder is named."""
    config = read_object(folder, "config.json")
    for key, kinds in _CONFIG.items():
        _check_kind("config.json", key, _lookup(config, key), kinds)
    milestones = config["protocol"]["milestones"]
    if not all(isinstance(milestone, int) for milestone in milestones):
        raise DamagedError(f"config.json: protocol.milestones is {reprlib.repr(milestones)}, which is no list of int")
    if config["data"].get("noise") is not None:
        _check_kind("config.json", "data.noise", config["data"]["noise"], (int,))
    name = f"{config['experiment']}-s{config['seed']}"
    if COLLECTED.fullmatch(folder.name):
        belongs = (folder.parent.name, folder.name) == (config["experiment"], f"seed{config['seed']}")
    else:
        belongs = not STORED.fullmatch(folder.name) or folder.name == f"{name}-{config['identity']}"
    if not belongs:
        raise DamagedError(f"foreign: config.json is that of {name} ({config['identity']})")
    return config


def _lookup(content: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        if not isinstance(content, dict) or key not in content:
            raise DamagedError(f"config.json has no {dotted}")
        content = content[key]
    return content


def _check_kind(file: str, key: str, value: Any, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        allowed = " or ".join(kind.__name__ for kind in kinds if kind is not _OPTIONAL)
        raise DamagedError(f"{file}: {key} is {reprlib.repr(value)}, which is no {allowed}")


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """provenance.json; None where there is none. A run that has not ended is a `DamagedError`, too."""
    if not (folder / "provenance.json").exists():
        return None
    provenance = read_object(folder, "provenance.json")
    segments = provenance.get("segments")
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise DamagedError("provenance.json has no list of segments")
    for segment in segments:
        for key, kinds in _SEGMENT.items():
            _check_kind("provenance.json", f"segments.{key}", segment.get(key), kinds)
    _check_kind("provenance.json", "profile", provenance.get("profile"), (str, _OPTIONAL))
    if provenance.get("status") != "finished":
        reached = max((segment.get("to_iteration") or 0 for segment in segments), default=0)
        because = f" ({' '.join(str(provenance['error']).split())})" if provenance.get("error") else ""
        raise DamagedError(f"unfinished: {provenance.get('status')} at iteration {reached}{because}")
    return provenance


def read_metrics(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of the whole run that `config` describes."""
    if not (folder / "metrics.json").is_file():
        raise DamagedError("unfinished: metrics.json is missing")
    metrics = read_object(folder, "metrics.json")
    missing = [key for key in _METRICS if key not in metrics]
    if missing:
        raise DamagedError(f"metrics.json has no {', '.join(missing)}")
    for key in dict.fromkeys((*_METRICS, *(key for key in metrics if key.endswith("_error")))):
        value = metrics[key]
        if isinstance(value, bool) or not isinstance(value, _NUMBER) or not math.isfinite(value):
            raise DamagedError(f"metrics.json has no number for {key}")
        if key.endswith("_error") and not 0 <= value <= 100:
            raise DamagedError(f"metrics.json: {key} is {value}, which is no percentage")
        if key in _COUNTS and value < 1:
            raise DamagedError(f"metrics.json: {key} is {value}, which is no count")
    if metrics["iterations"] != config["protocol"]["iterations"]:
        raise DamagedError(f"unfinished: {metrics['iterations']} of {config['protocol']['iterations']} iterations")
    images = config["data"].get("test_images", metrics["test_images"])
    if metrics["test_images"] != images:
        raise DamagedError(f"its test error was counted on {metrics['test_images']} of {images} test images")
    return metrics


def read_history(folder: Path, metrics: Mapping[str, Any]) -> dict[str, list[float]]:
    """The columns of history.csv, which must end where `metrics` do."""
    path = folder / "history.csv"
    if not path.is_file():
        raise DamagedError("history.csv is missing")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {key: [_number(row[key]) for row in rows] for key in HISTORY}
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error, OSError):
        raise DamagedError("history.csv cannot be read") from None
    if not rows:
        raise DamagedError("history.csv has no row")
    if not all(math.isfinite(value) for key in ("iteration", "test_error") for value in columns[key]):
        raise DamagedError("history.csv has a row without iteration or test error")
    if columns["iteration"][-1] != metrics["iterations"]:
        raise DamagedError(
            f"history.csv ends at iteration {columns['iteration'][-1]:g}, metrics.json at {metrics['iterations']}"
        )
    if abs(columns["test_error"][-1] - metrics["test_error"]) > 0.01:
        raise DamagedError("the last test error of history.csv is not that of metrics.json")
    return columns


def _number(text: str) -> float:
    """A cell of history.csv; an empty one (the loss of a run that diverged) is NaN."""
    return float(text) if text.strip() else math.nan


def read_responses(folder: Path) -> tuple[float, ...]:
    """Mean response of each stage relative to the first."""
    relative: Sequence[Any] | None = read_object(folder, "responses.json").get("relative")
    try:
        values = tuple(float(value) for value in relative or ())
    except (TypeError, ValueError):
        raise DamagedError("responses.json holds no list of numbers") from None
    if not values or not all(math.isfinite(value) for value in values):
        raise DamagedError("responses.json holds no list of numbers")
    return values
