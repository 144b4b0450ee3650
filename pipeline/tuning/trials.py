"""The folder of a search: what is searched, its trials, and how far each has come.

A trial is a run with a run folder of its own in the folder of the search; ``trial.json`` in it says which one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from pipeline.runs.reading import DamagedError, read_record
from pipeline.runs.records import HISTORY, TRIAL, Evaluation, read_rows
from pipeline.runs.store import SEARCHES
from pipeline.settings.reading import check
from pipeline.tuning.space import LARGEST, Space, Value
from pipeline.utils.files import write_json
from pipeline.utils.names import checked_plain_name

Positive = Annotated[int, Ge(1), Le(LARGEST)]
SEARCH = "search.json"
State = Literal["running", "finished", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """One trial, as its folder has it.

    Attributes:
        number: counted from 0.
        values: of the parameters of the space.
        state: running (or interrupted), finished, pruned (stopped early) or failed.
        iteration: the last evaluation that counted; evaluations made while a trial was being stopped do not.
        reason: why it failed.
    """

    number: Annotated[int, Ge(0), Le(LARGEST)]
    values: Mapping[str, Value]
    state: State = "running"
    iteration: Annotated[int, Ge(0), Le(LARGEST)] = 0
    reason: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Trial:
        """The trial of a run folder; DamagedError where it is none."""
        return read_record(cls, folder / TRIAL)

    def write(self, folder: Path) -> None:
        """Write ``trial.json``."""
        write_json(folder / TRIAL, asdict(self))

    @property
    def ended(self) -> bool:
        """Whether it needs no more training. A failed one is tried again when the search continues."""
        return self.state in ("finished", "pruned")


@dataclass(frozen=True)
class Progress:
    """A trial and its evaluations, in order. Errors are those of the validation images."""

    trial: Trial
    folder: Path
    rows: tuple[Evaluation, ...]

    @property
    def error(self) -> float | None:
        """Validation error in percent at the last evaluation; None before the first."""
        return self.rows[-1].test_error if self.rows else None

    def error_at(self, iteration: int) -> float | None:
        """Validation error at the first evaluation from an iteration on."""
        return next((row.test_error for row in self.rows if row.iteration >= iteration), None)


def read_progress(folder: Path) -> Progress:
    """A trial and its evaluations from its folder."""
    trial = Trial.read(folder)
    rows = read_rows(folder / HISTORY, Evaluation)
    counted = tuple(row for row in rows if row.iteration <= trial.iteration) if trial.ended else tuple(rows)
    return Progress(trial, folder, counted)


def trials(search: Path) -> list[Progress]:
    """The trials of a search, by number.

    Raises:
        UserError: for a trial that is damaged, or has values that are not of the search's space.
    """
    found = [read_progress(folder) for folder in sorted(search.glob("*")) if lexists(folder / TRIAL)]
    space = SearchConfig.read(search).searched(search) if found else None
    for progress in found:
        if space is not None and (problem := space.misfit(progress.trial.values)):
            raise DamagedError(progress.folder / TRIAL, problem)
    return sorted(found, key=lambda progress: progress.trial.number)


@dataclass(frozen=True)
class SearchConfig:
    """The configuration of a search that has begun (``search.json``).

    Attributes:
        name: ``<profile>-<space>``, and the experiment where it is not the usual one.
        statement: of the profile, on what its numbers are worth.
        wanted: number of trials.
        baseline: the profile's own settings as values of the space, if they lie in it.
        iterations: of a trial that is not stopped.
        rungs: iterations at which trials are compared; one of an earlier version has none here.
        commit: of the code, when the search began.
    """

    name: str
    identity: str
    profile: str
    statement: str
    experiment: str
    dataset: str
    seed: int
    wanted: Positive
    space: Mapping[str, Any]
    baseline: Mapping[str, Value] | None
    iterations: Positive
    train_images: Positive
    validation_images: Positive
    commit: str | None
    rungs: Sequence[Positive] = ()

    def __post_init__(self) -> None:
        """Refuse names that cannot be part of a path, or of a query to MLflow."""
        for key in ("name", "identity", "profile", "experiment", "dataset"):
            checked_plain_name(getattr(self, key), key)

    @classmethod
    def read(cls, folder: Path) -> SearchConfig:
        """Read the ``search.json`` of a search's folder; DamagedError where it is none."""
        return read_record(cls, folder / SEARCH)

    def searched(self, folder: Path) -> Space:
        """The space, checked; `folder` is where it was read from."""
        return check(Space, self.space, f"{folder / SEARCH}: space")

    def write(self, folder: Path) -> None:
        """Write ``search.json``."""
        write_json(folder / SEARCH, asdict(self))

    @property
    def folder_name(self) -> str:
        """Its folder among the searches of a store."""
        return f"{self.name}-{self.identity}"


def searches(store: Path) -> Iterator[Path]:
    """The folders of all searches in a run store, also those whose ``search.json`` cannot be read."""
    yield from sorted(folder for folder in (store / SEARCHES).glob("*") if lexists(folder / SEARCH))
