"""Run folders as the report sees them: what is whole is a `Run`, everything else is a named `Problem`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.report.checks import (
    COLLECTED,
    STORED,
    DamagedError,
    read_config,
    read_history,
    read_metrics,
    read_provenance,
    read_responses,
)
from pipeline.runs.store import PUBLISHED
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json
from pipeline.utils.statistics import is_at_chance

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
class Published:
    """The copy of a run under published/: its folder from there on, and its provenance. Both are tracked by git."""

    shown: str
    provenance: Mapping[str, Any]


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
    published: Published | None = None

    @property
    def name(self) -> str:
        """`<experiment>-s<seed>`."""
        return f"{self.config['experiment']}-s{self.config['seed']}"

    @property
    def identity(self) -> str:
        """Hash of everything that changes the run's numbers."""
        return str(self.config["identity"])

    @property
    def tracked_provenance(self) -> Mapping[str, Any] | None:
        """Its provenance: of a published run the committed one, which is the same in every checkout."""
        return self.published.provenance if self.published is not None else self.provenance

    @property
    def experiment(self) -> str:
        """Name of its experiment."""
        return str(self.config["experiment"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def dataset(self) -> str:
        """Name of the data set it was trained on."""
        return str(self.config["data"]["dataset"])

    @property
    def noise(self) -> int:
        """Label noise in percent."""
        return int(self.config["data"].get("noise") or 0)

    @property
    def is_at_chance(self) -> bool:
        """Whether its test error is not better than guessing among the classes."""
        classes = int(self.config["network"]["num_classes"])
        return is_at_chance(float(self.metrics["test_error"]), int(self.metrics["test_images"]), classes)

    @property
    def iterations(self) -> int:
        """Number of updates of the weights."""
        return int(self.metrics["iterations"])

    @property
    def masks(self) -> Path:
        """Its masks.npz, whether or not it is there."""
        return self.folder / "masks.npz"


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
            if other := _other_number(first, run):
                problems.append(_problem(folder, shown, run.profile, other))
                continue
            if run.provenance is None:
                continue
            if first.provenance is None:
                first = replace(first, provenance=run.provenance)
            if first.published is None and Path(source).name == PUBLISHED.name:
                first = replace(first, published=Published(shown, run.provenance))
            runs[run.identity] = first
    return Scan(runs, tuple(problems))


def _other_number(first: Run, copy: Run) -> str | None:
    """What a copy of a run says otherwise than the first one, as a reason why it is not used."""
    for key in ("test_error", "best_test_error", "train_error"):
        if copy.metrics[key] != first.metrics[key]:
            return f"its {key} is {copy.metrics[key]}, that of the same run in {first.shown} is {first.metrics[key]}"
    return None


def _folders(source: Path) -> Iterator[Path]:
    """Folders that hold, or by their name should hold, a run's files, in sorted order.

    Hidden ones are other people's unfinished writes.
    """
    for where, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        name = Path(where).name
        if COLLECTED.fullmatch(name) or STORED.fullmatch(name) or any(name in files for name in _FILES):
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
    elif stored := STORED.fullmatch(folder.name):
        run, identity = stored.groups()
    with suppress(UserError, KeyError, TypeError, OSError, RecursionError):
        config = read_json(folder / "config.json")
        run, identity = f"{config['experiment']}-s{config['seed']}", str(config["identity"])
    with suppress(UserError, KeyError, TypeError, OSError, RecursionError):
        profile = profile or str(read_json(folder / "provenance.json")["profile"])
    return Problem(shown, reason, run, identity, profile)


def _read(folder: Path, shown: str, profile: str | None) -> Run:
    config = read_config(folder)
    provenance = read_provenance(folder)
    metrics = read_metrics(folder, config)
    history = read_history(folder, metrics)
    if provenance is not None:
        profile = provenance.get("profile") or profile
    responses, notes = None, []
    try:
        responses = read_responses(folder)
    except DamagedError as damage:
        notes.append(f"{damage}; the run counts, without its responses")
    if not (folder / "masks.npz").is_file():
        notes.append("masks.npz is missing; the run counts, without its masks")
    return Run(folder, shown, config, metrics, history, responses, provenance, profile, tuple(notes))
