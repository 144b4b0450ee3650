"""Run folders as the report sees them: a complete folder is a `Run`, any other a named `Problem`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.arrays import Masks, read_mistakes
from pipeline.runs.reading import DamagedError, NotFiniteError, parse, read_checksums, read_object
from pipeline.runs.records import (
    CONFIG,
    HISTORY,
    MASKS,
    METRICS,
    MISTAKES,
    PROVENANCE,
    TOLERANCE,
    Evaluation,
    Metrics,
    Provenance,
    Responses,
    read_rows,
)
from pipeline.runs.spec import RUN_FOLDER, Configured, RunSpec
from pipeline.runs.store import PUBLISHED
from pipeline.utils.errors import printable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

COLLECTED = re.compile(r"seed\d+")


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
    provenance: Provenance


@dataclass(frozen=True)
class Run(Configured):
    """One finished run.

    Attributes:
        config: content of config.json, as the plan has it.
        history: the evaluations, a row each.
        verified: whether the run has checksums.
        has_diverged: whether its responses or masks are not finite.
        mistakes: whether each test image is wrong, bool [N]; None of a run that was finished before this was kept.
        notes: which of its files are damaged without a loss of its errors.
    """

    folder: Path
    shown: str
    config: Mapping[str, Any]
    metrics: Metrics
    history: pd.DataFrame = field(repr=False, compare=False)
    relative_responses: tuple[float, ...] | None
    provenance: Provenance | None
    profile: str | None
    verified: bool = False
    has_diverged: bool = False
    mistakes: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    published: Published | None = None

    @property
    def identity(self) -> str:
        """Hash of everything that changes the run's numbers."""
        return str(self.config["identity"])

    @property
    def tracked_provenance(self) -> Provenance | None:
        """Its provenance: of a published run the committed one, which is the same in every checkout."""
        return self.published.provenance if self.published is not None else self.provenance

    @property
    def is_at_chance(self) -> bool:
        """Whether its test error is not better than guessing among the classes."""
        from pipeline.utils.statistics import is_at_chance  # scipy takes longer to import than most commands run

        classes = int(self.config["network"]["num_classes"])
        return is_at_chance(self.metrics.test_error, self.metrics.test_images, classes)

    @property
    def iterations(self) -> int:
        """Number of updates of the weights."""
        return self.metrics.iterations

    @property
    def masks(self) -> Path:
        """The path of masks.npz, whether or not the file is there."""
        return self.folder / MASKS


@dataclass(frozen=True)
class Scan:
    """What the sources hold: complete runs by identity (one each), and the folders that are not complete runs."""

    runs: Mapping[str, Run]
    problems: tuple[Problem, ...]


def scan(sources: Sequence[Path]) -> Scan:
    """Read every run folder below `sources`; of several copies of a run the first complete one counts.

    A copy without provenance.json (results/ has none) takes over that of another copy.
    """
    runs: dict[str, Run] = {}
    problems = []
    for source in sources:
        for folder in _folders(Path(source)):
            shown = printable(str(Path(source).name / folder.relative_to(source)))
            profile = _profile_of(folder.relative_to(source).parts)
            try:
                run = _read(folder, shown, profile)
            except DamagedError as damage:
                problems.append(_problem(folder, shown, profile, _reason(damage)))
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
    """The reason why a copy of a run is not used: a number that differs from that of the first copy."""
    ours = copy.metrics.to_json()
    for key, value in first.metrics.to_json().items():
        if key.endswith("_error") and ours.get(key) != value:
            return f"its {key} is {ours.get(key)}, that of the same run in {first.shown} is {value}"
    return None


def _reason(damage: DamagedError) -> str:
    """What is wrong with a file of a run, without the folder: reports are equal on every machine."""
    return damage.reason if damage.reason.startswith("unfinished") else f"{damage.path.name}: {damage.reason}"


def _folders(source: Path) -> Iterator[Path]:
    """Folders that hold, or by their name should hold, a run's files, in sorted order.

    Hidden ones are other people's unfinished writes.
    """
    for where, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        name = Path(where).name
        named = COLLECTED.fullmatch(name) or RUN_FOLDER.fullmatch(name)
        if named or not {CONFIG, METRICS, HISTORY}.isdisjoint(files):
            folders.clear()
            yield Path(where)


def _profile_of(parts: tuple[str, ...]) -> str | None:
    """Profile in results/<profile>/<experiment>/seed<k> or published/<profile>/<run>; a store has none."""
    if len(parts) == 3 and parts[2].startswith("seed"):
        return printable(parts[0])
    return printable(parts[0]) if len(parts) == 2 and not parts[1].startswith("seed") else None


def _problem(folder: Path, shown: str, profile: str | None, reason: str) -> Problem:
    """A problem with the run's name, identity and profile, as far as its files or else its path still tell them."""
    run = identity = None
    if folder.name.startswith("seed"):
        run = f"{folder.parent.name}-s{folder.name.removeprefix('seed')}"
    elif stored := RUN_FOLDER.fullmatch(folder.name):
        run, identity = stored.groups()
    with suppress(DamagedError):
        config = _config(folder)
        run, identity = f"{config['experiment']}-s{config['seed']}", str(config["identity"])
    with suppress(DamagedError):
        profile = profile or str(read_object(folder / PROVENANCE).get("profile"))
    return Problem(shown, printable(reason), run and printable(run), identity, profile and printable(profile))


def _config(folder: Path) -> dict[str, Any]:
    """The content of a config.json that describes a run."""
    content = read_object(folder / CONFIG)
    parse(RunSpec, content, folder / CONFIG)
    if not isinstance(content.get("identity"), str):
        raise DamagedError(folder / CONFIG, "has no identity")
    return content


def _own_config(folder: Path) -> dict[str, Any]:
    """The configuration of the run that the folder is named after."""
    config = _config(folder)
    name = f"{config['experiment']}-s{config['seed']}"
    if COLLECTED.fullmatch(folder.name):
        belongs = (folder.parent.name, folder.name) == (config["experiment"], f"seed{config['seed']}")
    else:
        belongs = not RUN_FOLDER.fullmatch(folder.name) or folder.name == f"{name}-{config['identity']}"
    if not belongs:
        raise DamagedError(folder / CONFIG, f"foreign: that of {name} ({config['identity']})")
    return config


def _read(folder: Path, shown: str, profile: str | None) -> Run:
    import pandas as pd

    config, provenance = _own_config(folder), Provenance.read(folder)
    if provenance is not None:
        provenance.check_finished(folder)
    if not (folder / METRICS).is_file():
        raise DamagedError(folder / METRICS, f"unfinished: {METRICS} is missing")
    metrics, history = Metrics.read(folder), read_rows(folder / HISTORY, Evaluation)
    metrics.check(folder, history, config["protocol"]["iterations"], config["data"]["test_images"])
    parts: dict[str, Any] = {}
    has_diverged, notes = False, []
    for name, read in (("responses", Responses.read), ("masks", Masks.read), ("mistakes", partial(_mistakes, metrics))):
        try:
            parts[name] = read(folder)
        except NotFiniteError as damage:
            has_diverged = True
            notes.append(f"diverged: {_reason(damage)}")
        except DamagedError as damage:
            notes.append(f"{_reason(damage)}; the run counts, without its {name}")
    if "masks" in parts and not parts["masks"].are_finite:
        has_diverged = True
        notes.append(f"diverged: {MASKS}: its masks are not finite")
    return Run(
        folder=folder,
        shown=shown,
        config=config,
        metrics=metrics,
        history=pd.DataFrame(history),
        relative_responses=parts["responses"].relative if "responses" in parts else None,
        provenance=provenance,
        profile=provenance.profile if provenance else profile,
        verified=read_checksums(folder) is not None,
        has_diverged=has_diverged,
        mistakes=parts.get("mistakes"),
        notes=tuple(notes),
    )


def _mistakes(metrics: Metrics, folder: Path) -> NDArray[np.bool_] | None:
    """Which test images a run got wrong, as many as its metrics say."""
    wrong, error = read_mistakes(folder), metrics.test_error
    if wrong is not None and abs(100 * float(wrong.mean()) - error) > TOLERANCE:
        raise DamagedError(folder / MISTAKES, f"{100 * wrong.mean():.2f} % of the images, {METRICS} has {error} %")
    return wrong
