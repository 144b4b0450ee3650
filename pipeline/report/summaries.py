"""The `summary.json` of a report, as the index over all reports and `compare` read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from pipeline.runs.reading import DamagedError, parse, read_record
from pipeline.utils.names import checked_plain_name

SUMMARY = "summary.json"
Whole = Annotated[int, Ge(0), Le(2**53)]
Finite = Annotated[float, Ge(-1e15), Le(1e15)]


@dataclass(frozen=True)
class RunCount:
    """How many finished runs of its plan a report has, and how many published seeds besides."""

    done: Whole
    published_seeds: Whole = 0

    @property
    def finished(self) -> int:
        """Both together."""
        return self.done + self.published_seeds


@dataclass(frozen=True)
class KeyNumber:
    """A test error that the index shows, as text."""

    experiment: str
    error: str
    half_width: str
    seeds: str


@dataclass(frozen=True)
class ClaimSummary:
    """The verdict on a claim, by `n` seeds."""

    verdict: str
    n: Whole


@dataclass(frozen=True)
class CellSummary:
    """A cell of a table; a count has neither seeds nor a basis."""

    measured: Finite | None
    seeds: tuple[int, ...] = ()
    basis: str = ""


@dataclass(frozen=True)
class Summary:
    """What the index reads of a report; one of an earlier version lacks what has a default here."""

    profile: str
    statement: str
    standin: bool
    reproduction: bool
    runs: RunCount
    claims: dict[str, ClaimSummary]
    tables: dict[str, dict[str, CellSummary]]
    results: str = "This report was made by an earlier version."
    key_numbers: tuple[KeyNumber, ...] = ()
    iterations: Whole = 0

    def __post_init__(self) -> None:
        """Refuse a profile that is no name: it becomes part of paths and links."""
        checked_plain_name(self.profile, "profile")

    @classmethod
    def read(cls, path: Path) -> Summary:
        """The summary in the folder of a profile's report; DamagedError for any other file."""
        found = read_record(cls, path)
        if found.profile != path.parent.name:
            raise DamagedError(path, f"profile = {found.profile!r}: is not that of its folder")
        return found


@dataclass(frozen=True)
class Prediction:
    """Where the published seeds of an experiment expect one more, and the errors of the runs trained here, by name."""

    low: Finite
    high: Finite
    n: Whole
    trained: dict[str, Finite]


@dataclass(frozen=True)
class _Predictions:
    predictions: dict[str, Prediction] = field(default_factory=dict)


def read_predictions(content: Mapping[str, Any], path: Path) -> Mapping[str, Prediction]:
    """The predictions of a summary, by experiment; DamagedError that names `path` where they are none."""
    return parse(_Predictions, content, path).predictions
