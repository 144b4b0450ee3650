"""Run folders as the report sees them: what is whole is a `Run`, everything else is a named `Problem`."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_json

HISTORY = ("epoch", "iteration", "learning_rate", "train_loss", "train_error", "test_loss", "test_error")
_CONFIG = ("identity", "experiment", "seed", "network", "data", "protocol", "numerics")
_PROTOCOL = ("iterations", "batch_size", "learning_rate", "milestones")
_METRICS = ("test_error", "train_error", "best_test_error", "iterations", "parameters", "multiply_adds", "test_images")
_STORED = re.compile(r"(.+-s\d+)-([0-9a-f]{12})")
_FILES = ("config.json", "metrics.json", "history.csv")


@dataclass(frozen=True)
class Problem:
    """A run folder that gives no number, and why."""

    path: str
    reason: str
    run: str | None = None
    identity: str | None = None
    profile: str | None = None


@dataclass(frozen=True)
class Run:
    """One whole, finished run. Errors are in percent; `history` has one list per column of history.csv.

    `notes` say which of its lesser files are damaged: its errors count all the same.
    """

    folder: Path
    shown: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Mapping[str, Sequence[float]] = field(repr=False)
    relative_responses: tuple[float, ...] | None
    provenance: Mapping[str, Any] | None
    profile: str | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`<experiment>-s<seed>`."""
        return f"{self.config['experiment']}-s{self.config['seed']}"

    @property
    def identity(self) -> str:
        """Hash of everything that changes the run's numbers."""
        return str(self.config["identity"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def dataset(self) -> str:
        """Name of the data set it was trained on."""
        return str(self.config["data"]["dataset"])

    @property
    def iterations(self) -> int:
        """Number of updates of the weights."""
        return int(self.metrics["iterations"])

    @property
    def masks(self) -> Path:
        """Its masks.npz, whether or not it is there."""
        return self.folder / "masks.npz"


class DamagedError(Exception):
    """A run folder cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class Scan:
    """What lies in the sources: whole runs by identity (one each), and the folders that are no whole run."""

    runs: Mapping[str, Run]
    problems: tuple[Problem, ...]


def scan(sources: Sequence[Path]) -> Scan:
    """Read every run folder below `sources`; of several copies of a run the first whole one counts.

    A copy without provenance.json (results/ has none) takes over that of another copy.
    """
    runs: dict[str, Run] = {}
    problems = []
    for source in sources:
        for folder in _folders(Path(source)):
            shown = str(Path(source).name / folder.relative_to(source))
            profile = _profile_of(folder.relative_to(source).parts)
            try:
                run = _read(folder, shown, profile)
            except DamagedError as damage:
                problems.append(_problem(folder, shown, profile, str(damage)))
                continue
            problems += [_problem(folder, shown, run.profile, note) for note in run.notes]
            first = runs.setdefault(run.identity, run)
            if first.provenance is None and run.provenance is not None:
                runs[run.identity] = replace(first, provenance=run.provenance)
    return Scan(runs, tuple(problems))


def _folders(source: Path) -> Iterator[Path]:
    """Folders that hold a run's files, in sorted order; hidden ones are other people's unfinished writes."""
    for where, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(name in files for name in _FILES):
            folders.clear()
            yield Path(where)


def _profile_of(parts: tuple[str, ...]) -> str | None:
    """Profile in results/<profile>/<experiment>/seed<k> or published/<profile>/<run>; a store has none."""
    if len(parts) == 3 and parts[2].startswith("seed"):
        return parts[0]
    return parts[0] if len(parts) == 2 and not parts[1].startswith("seed") else None


def _problem(folder: Path, shown: str, profile: str | None, reason: str) -> Problem:
    """A problem with the run's name, identity and profile, as far as its files or else its path still tell them."""
    run = identity = None
    if folder.name.startswith("seed"):
        run = f"{folder.parent.name}-s{folder.name.removeprefix('seed')}"
    elif stored := _STORED.fullmatch(folder.name):
        run, identity = stored.groups()
    with suppress(UserError, KeyError, TypeError, OSError):
        config = read_json(folder / "config.json")
        run, identity = f"{config['experiment']}-s{config['seed']}", str(config["identity"])
    with suppress(UserError, KeyError, TypeError, OSError):
        profile = profile or read_json(folder / "provenance.json")["profile"]
    return Problem(shown, reason, run, identity, profile)


def _read(folder: Path, shown: str, profile: str | None) -> Run:
    config = _mapping(folder, "config.json", _CONFIG)
    _check_config(folder, config)
    provenance = _provenance(folder)
    _check_finished(folder, provenance)
    if not (folder / "metrics.json").is_file():
        raise DamagedError("unfinished: metrics.json is missing")
    metrics = _mapping(folder, "metrics.json", _METRICS)
    _check_metrics(config, metrics)
    history = _history(folder / "history.csv")
    if int(history["iteration"][-1]) != metrics["iterations"]:
        raise DamagedError(
            f"history.csv ends at iteration {int(history['iteration'][-1])}, metrics.json at {metrics['iterations']}"
        )
    if abs(history["test_error"][-1] - metrics["test_error"]) > 0.01:
        raise DamagedError("the last test error of history.csv is not that of metrics.json")
    if provenance is not None:
        profile = provenance.get("profile") or profile
    responses, notes = None, []
    try:
        responses = _responses(folder)
    except DamagedError as damage:
        notes.append(f"{damage}; the run counts, without its responses")
    if not (folder / "masks.npz").is_file():
        notes.append("masks.npz is missing; the run counts, without its masks")
    return Run(folder, shown, config, metrics, history, responses, provenance, profile, tuple(notes))


def _mapping(folder: Path, name: str, keys: Sequence[str]) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise DamagedError(f"{name} is missing")
    try:
        content = read_json(folder / name)
    except (UserError, OSError):
        raise DamagedError(f"{name} is not valid JSON") from None
    if not isinstance(content, dict):
        raise DamagedError(f"{name} is not a JSON object")
    missing = [key for key in keys if key not in content]
    if missing:
        raise DamagedError(f"{name} has no {', '.join(missing)}")
    return content


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    for key, inner in (("network", ("name",)), ("data", ("dataset", "checksum")), ("protocol", _PROTOCOL)):
        missing = [name for name in inner if not isinstance(config[key], dict) or name not in config[key]]
        if missing:
            raise DamagedError(f"config.json has no {key}.{missing[0]}")
    name = f"{config['experiment']}-s{config['seed']}"
    if re.fullmatch(r"seed\d+", folder.name):
        belongs = (folder.parent.name, folder.name) == (config["experiment"], f"seed{config['seed']}")
    else:
        belongs = not _STORED.fullmatch(folder.name) or folder.name == f"{name}-{config['identity']}"
    if not belongs:
        raise DamagedError(f"foreign: config.json is that of {name} ({config['identity']})")


def _provenance(folder: Path) -> dict[str, Any] | None:
    if not (folder / "provenance.json").is_file():
        return None
    return _mapping(folder, "provenance.json", ("status", "segments"))


def _check_finished(folder: Path, provenance: dict[str, Any] | None) -> None:
    if provenance is None or provenance["status"] == "finished":
        return
    reached = max((segment.get("to_iteration") or 0 for segment in provenance["segments"]), default=0)
    because = f" ({provenance['error']})" if provenance.get("error") else ""
    raise DamagedError(f"unfinished: {provenance['status']} at iteration {reached}{because}")


def _check_metrics(config: dict[str, Any], metrics: dict[str, Any]) -> None:
    for key in _METRICS:
        value = metrics[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DamagedError(f"metrics.json has no number for {key}")
        if key.endswith("_error") and not 0 <= value <= 100:
            raise DamagedError(f"metrics.json: {key} is {value}, which is no percentage")
    if metrics["iterations"] != config["protocol"]["iterations"]:
        raise DamagedError(f"unfinished: {metrics['iterations']} of {config['protocol']['iterations']} iterations")


def _history(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        raise DamagedError("history.csv is missing")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {key: [_number(row[key]) for row in rows] for key in HISTORY}
    except (KeyError, ValueError, TypeError, csv.Error, OSError):
        raise DamagedError("history.csv cannot be read") from None
    if not rows:
        raise DamagedError("history.csv has no row")
    if not all(math.isfinite(value) for key in ("iteration", "test_error") for value in columns[key]):
        raise DamagedError("history.csv has a row without iteration or test error")
    return columns


def _number(text: str) -> float:
    """A cell of history.csv; an empty one (the loss of a run that diverged) is NaN."""
    return float(text) if text.strip() else math.nan


def _responses(folder: Path) -> tuple[float, ...]:
    """Mean response of each stage relative to the first."""
    relative = _mapping(folder, "responses.json", ("relative",))["relative"]
    try:
        values = tuple(float(value) for value in relative)
    except (TypeError, ValueError):
        raise DamagedError("responses.json holds no list of numbers") from None
    if not values or not all(math.isfinite(value) for value in values):
        raise DamagedError("responses.json holds no list of numbers")
    return values
