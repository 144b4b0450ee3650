"""The small files of a run folder: history, timing, metrics, provenance, progress.

`DETERMINISTIC` files are functions of the run's numbers alone: equal numbers give equal bytes. What depends on the
machine and the day (seconds, hardware, commit) is kept apart, in `MACHINE` files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.utils.errors import UserError
from pipeline.utils.files import csv_text, read_json, write_atomic, write_json

CONFIG, METRICS, HISTORY = "config.json", "metrics.json", "history.csv"
RESPONSES, MASKS = "responses.json", "masks.npz"
PROVENANCE, TIMING = "provenance.json", "timing.csv"
WEIGHTS, CHECKPOINTS, PROGRESS, LOG = "weights.safetensors", "checkpoints", "progress.json", "log.txt"
STATE = "state.json"  # of a checkpoint, its last file
DETERMINISTIC = (CONFIG, HISTORY, METRICS, RESPONSES, MASKS)
MACHINE = (PROVENANCE, TIMING)

UNITS = 2**20  # of the fixed point in which losses are summed: rounded to a millionth


@dataclass(frozen=True)
class Evaluation:
    """One row of the history. Errors in percent; training figures are means since the row before.

    `top5_error` is that of the test images; None, and no column, where it is not measured.
    """

    epoch: float
    iteration: int
    learning_rate: float
    train_loss: float
    train_error: float
    test_loss: float
    test_error: float
    top5_error: float | None = None


@dataclass(frozen=True)
class Timing:
    """One row of the timing: seconds of the run so far, and training images a second since the row before."""

    epoch: float
    iteration: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Segment:
    """What one uninterrupted stretch of a run ran on."""

    from_iteration: int
    to_iteration: int
    started: str
    seconds: float
    images_per_second: float
    hostname: str
    device: str
    threads: int
    workers: int
    versions: dict[str, str]
    commit: str | None
    dirty: bool
    command: str
    gpus: float = 0.0  # share of a GPU that each worker had


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers come from. `status` is running, paused, finished or failed."""

    status: str
    profile: str
    segments: tuple[Segment, ...] = ()
    mlflow_run_id: str | None = None
    error: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Provenance | None:
        """A run folder's provenance; None where there is none yet."""
        path = folder / PROVENANCE
        if not path.exists():
            return None
        content = read_json(path)
        try:
            known = {f.name: content[f.name] for f in fields(cls)}
            return cls(**{**known, "segments": tuple(Segment(**s) for s in content["segments"])})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not the provenance of a run ({error})") from None

    def write(self, folder: Path) -> None:
        """Write ``provenance.json``."""
        write_json(folder / PROVENANCE, asdict(self))

    def ended(self, status: str, error: str | None = None) -> Provenance:
        """The same with another status."""
        return replace(self, status=status, error=error)


Row = TypeVar("Row", Evaluation, Timing)


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Write rows as CSV; floats in full, so that reading gives equal rows. What is None in all rows has no column."""
    required = {f.name for f in fields(kind) if f.default is MISSING}
    names = [f.name for f in fields(kind) if f.name in required or any(getattr(r, f.name) is not None for r in rows)]
    write_atomic(path, csv_text(names, ([repr(getattr(row, name)) for name in names] for row in rows)))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The inverse of `write_rows`; no file, no rows. A malformed file raises UserError."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [row_from(kind, row) for row in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: malformed row ({error})") from None


def row_from(kind: type[Row], content: dict[str, Any]) -> Row:
    """A row from its JSON or CSV content."""
    there = [f.name for f in fields(kind) if f.default is MISSING or content.get(f.name) is not None]
    values: dict[str, Any] = {name: float(content[name]) for name in there}
    return kind(**(values | {"iteration": int(content["iteration"])}))


@dataclass(frozen=True)
class Sums:
    """Sums over images: loss in units of 2**-20, wrong predictions, images, and losses that were not finite.

    `wrong_top5` are those whose label is not among the five best predictions, where that is counted.
    """

    loss: int = 0
    wrong: int = 0
    images: int = 0
    not_finite: int = 0
    wrong_top5: int = 0

    @property
    def mean_loss(self) -> float:
        """Mean loss of an image."""
        return self.loss / UNITS / self.images

    @property
    def error(self) -> float:
        """Error in percent."""
        return 100 * self.wrong / self.images

    @property
    def top5_error(self) -> float:
        """Top-5 error in percent."""
        return 100 * self.wrong_top5 / self.images


@dataclass
class Position:
    """How far a run has come: all of its state that is not a tensor. `sums` are those since the last evaluation."""

    iteration: int = 0
    seconds: float = 0.0
    sums: Sums = field(default_factory=Sums)
    history: list[Evaluation] = field(default_factory=list)
    timing: list[Timing] = field(default_factory=list)
