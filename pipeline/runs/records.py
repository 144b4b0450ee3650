"""The files of a run's folder, each with one type, one reader and one writer.

`DETERMINISTIC` files are functions of the run's numbers alone: equal numbers give equal bytes. What depends on the
machine and the day (seconds, hardware, commit) stands in the `MACHINE` files. Readers compare a file with its checksum
and validate it (`pipeline.runs.reading`); they raise `DamagedError`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import datetime
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pipeline.runs.execution import YEAR
from pipeline.runs.reading import CHECKSUMS, DamagedError, parse, read_record, read_verified
from pipeline.utils.errors import one_line, shown
from pipeline.utils.files import csv_text, write_atomic, write_json
from pipeline.utils.limits import Ge, Gt, Le, Lt
from pipeline.utils.names import checked_plain_name

CONFIG, METRICS, HISTORY = "config.json", "metrics.json", "history.csv"
RESPONSES, MASKS, MISTAKES = "responses.json", "masks.npz", "mistakes.npz"
PROVENANCE, TIMING = "provenance.json", "timing.csv"
WEIGHTS, CHECKPOINTS, PROGRESS, LOG = "weights.safetensors", "checkpoints", "progress.json", "log.txt"
STATE = "state.json"  # of a checkpoint, its last file
TRIAL = "trial.json"  # marks the folder of a trial of a search, which is not a run of its own
REQUIRED = (CONFIG, HISTORY, METRICS, RESPONSES, MASKS)
DETERMINISTIC = (*REQUIRED, MISTAKES)  # runs finished before there were mistakes have none
MACHINE = (PROVENANCE, TIMING)
SYSTEM = "system-*.csv"  # samples of the machines' load

UNITS = 2**20  # of the fixed point in which losses are summed: rounded to a millionth
Status = Literal["running", "paused", "finished", "failed"]
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")  # as Python writes it
LAST_YEAR = 9000
TOLERANCE = 0.01  # points between the last test error of the history and that of the metrics


Measured = Annotated[float, Ge(0), Le(1e39)]  # a loss or a rate of float32: a run that diverges stops before its row
Response = Annotated[float, Ge(0), Le(sys.float_info.max)]
Percent = Annotated[float, Ge(0), Le(100)]
Iteration = Annotated[int, Ge(0), Le(10**7)]  # RunSpec allows no more
Seconds = Annotated[float, Ge(0), Le(100 * YEAR)]
Count = Annotated[int, Gt(0), Lt(2**63)]


@dataclass(frozen=True)
class Evaluation:
    """One row of the history. Errors in percent; training figures are means since the row before.

    `top5_error` is that of the test images; None, and no column, where it is not measured.
    """

    epoch: Measured
    iteration: Iteration
    learning_rate: Measured
    train_loss: Measured
    train_error: Percent
    test_loss: Measured
    test_error: Percent
    top5_error: Percent | None = None


@dataclass(frozen=True)
class Timing:
    """One row of the timing: seconds of the run so far, and training images a second since the row before."""

    epoch: Measured
    iteration: Iteration
    seconds: Seconds
    images_per_second: Measured


@dataclass(frozen=True)
class Segment:
    """One uninterrupted part of a run: what it ran on, and for how long.

    Attributes:
        gpus: share of a GPU that each worker had.
    """

    from_iteration: Iteration
    to_iteration: Iteration
    started: str
    seconds: Seconds
    images_per_second: Measured
    hostname: str
    device: str
    threads: Annotated[int, Gt(0), Le(1024)]
    workers: Annotated[int, Gt(0), Le(1024)]
    versions: dict[str, str]
    commit: str | None
    dirty: bool
    command: str
    gpus: Annotated[float, Ge(0), Le(1024)] = 0.0

    def __post_init__(self) -> None:
        """Refuse a moment that cannot be, and an end before the beginning."""
        try:
            year = datetime.fromisoformat(self.started).year
        except ValueError:
            year = LAST_YEAR
        if year >= LAST_YEAR:
            raise ValueError(f"started = {shown(self.started)}: must be a moment before the year {LAST_YEAR}")
        if self.from_iteration > self.to_iteration:
            raise ValueError(f"from_iteration = {self.from_iteration}: is beyond to_iteration = {self.to_iteration}")

    @property
    def hardware(self) -> str:
        """Device and threads."""
        if not self.threads or "thread" in self.device:
            return self.device
        return f"{self.device}, {self.threads} thread{'' if self.threads == 1 else 's'}"

    @property
    def libraries(self) -> str:
        """Versions of the libraries."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers come from, and how far it has come."""

    status: Status
    profile: str
    segments: tuple[Segment, ...] = ()
    mlflow_run_id: str | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Refuse a profile that is no name, and more time than there can have been."""
        checked_plain_name(self.profile, "profile")
        if not self.seconds <= 100 * YEAR:
            raise ValueError("segments: their seconds are more than a hundred years")

    @property
    def was_moved(self) -> bool:
        """Whether the segments differ in hardware, threads or versions, so that bit-equality is not promised."""
        return len(self.surroundings) > 1

    @property
    def surroundings(self) -> set[tuple[str, str]]:
        """Hardware with threads, and library versions, that the segments ran on."""
        return {(segment.hardware, segment.libraries) for segment in self.segments}

    @property
    def seconds(self) -> float:
        """Seconds of training in all segments."""
        return sum(segment.seconds for segment in self.segments)

    @classmethod
    def read(cls, folder: Path) -> Provenance | None:
        """The provenance of a run's folder; None where there is none yet."""
        path = folder / PROVENANCE
        return read_record(cls, path) if lexists(path) else None

    def write(self, folder: Path) -> None:
        """Write ``provenance.json``; from then on the run has no checksums, until it is finished."""
        (folder / CHECKSUMS).unlink(missing_ok=True)
        write_json(folder / PROVENANCE, asdict(self))

    def check_finished(self, folder: Path) -> None:
        """Raise DamagedError, for the file in `folder`, where it does not say that the run is finished."""
        if self.status != "finished":
            reached = max((segment.to_iteration for segment in self.segments), default=0)
            because = f" ({' '.join(self.error.split())})" if self.error else ""
            raise DamagedError(folder / PROVENANCE, f"unfinished: {self.status} at iteration {reached}{because}")

    def ended(self, status: Status, error: str | None = None) -> Provenance:
        """This provenance with another status."""
        return replace(self, status=status, error=error)


Row = TypeVar("Row", Evaluation, Timing)


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Write rows as CSV; floats in full, so that reading gives equal rows. What is None in all rows has no column."""
    required = {f.name for f in fields(kind) if f.default is MISSING}
    names = [f.name for f in fields(kind) if f.name in required or any(getattr(r, f.name) is not None for r in rows)]
    write_atomic(path, csv_text(names, ([repr(getattr(row, name)) for name in names] for row in rows)))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows that `write_rows` wrote; none where there is no file.

    Raises:
        DamagedError: if the file is damaged, or a cell is missing or is not a number.
    """
    if not lexists(path):
        return []
    data = read_verified(path)
    try:
        table = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
        rows: list[Row] = list(parse(tuple[kind, ...], [_row(kind, row) for row in table], path))  # type: ignore[valid-type]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        reason = error.reason if isinstance(error, DamagedError) else one_line(error)
        raise DamagedError(path, f"malformed ({reason})") from None
    names = list(table.fieldnames or ())
    expected = [f.name for f in fields(kind) if f.default is MISSING or f.name in names]
    if names != expected:
        raise DamagedError(path, f"malformed (its first line is not {','.join(expected)})")
    return rows


def _row(kind: type[Row], content: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a row, which `write_rows` wrote with `repr`."""
    values = {f.name: _number(content[f.name]) for f in fields(kind) if f.name in content}
    if len(values) < len(content):
        raise ValueError(f"a row has {len(content)} cells instead of {len(values)}")
    return values | {"iteration": int(content["iteration"])}


def _number(text: str) -> float:
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a finite number")
    return float(text)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The numbers of a finished run. Errors are in percent, and those of its last iteration.

    Attributes:
        best_test_error: the lowest of all evaluations, that of the epoch `best_epoch`.
        multiply_adds: of one image.
        top5_error: None, and not in the file, where it is not measured.
    """

    test_error: Percent
    test_loss: Measured
    top5_error: Percent | None = None
    train_error: Percent
    train_loss: Measured
    best_test_error: Percent
    best_epoch: Measured
    iterations: Count
    epochs: Measured
    parameters: Count
    multiply_adds: Count
    test_images: Count
    weights_sha256: str

    def __post_init__(self) -> None:
        """Refuse a best error above the last."""
        if self.best_test_error > self.test_error:
            raise ValueError(f"best_test_error = {self.best_test_error}: must be at most test_error, {self.test_error}")

    @classmethod
    def read(cls, folder: Path) -> Metrics:
        """The metrics of a finished run's folder."""
        return read_record(cls, folder / METRICS)

    def write(self, folder: Path) -> None:
        """Write ``metrics.json``, the file that makes a run a finished one."""
        write_json(folder / METRICS, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def check(self, folder: Path, history: Sequence[Evaluation], iterations: int, test_images: int) -> None:
        """Raise DamagedError where the metrics contradict the run's configuration or its history."""
        path = folder / METRICS
        if self.iterations != iterations:
            raise DamagedError(path, f"unfinished: {self.iterations} of {iterations} iterations")
        if self.test_images != test_images:
            raise DamagedError(path, f"the error was counted on {self.test_images} of {test_images} test images")
        if not history:
            raise DamagedError(folder / HISTORY, "no such file, or no row in it")
        last = history[-1]
        if last.iteration != self.iterations:
            raise DamagedError(folder / HISTORY, f"ends at iteration {last.iteration}, {METRICS} at {self.iterations}")
        if not abs(last.test_error - self.test_error) <= TOLERANCE:
            raise DamagedError(
                folder / HISTORY, f"ends at a test error of {last.test_error}, {METRICS} has {self.test_error}"
            )


@dataclass(frozen=True)
class Responses:
    """Mean absolute response of each stage over the test images (Figure 4), and the same relative to the first."""

    stages: tuple[Response, ...]
    relative: tuple[Response, ...]

    def __post_init__(self) -> None:
        """Refuse empty lists, and lists of different lengths."""
        if not self.relative or len(self.relative) != len(self.stages):
            raise ValueError(f"{len(self.stages)} responses, {len(self.relative)} of them relative to the first")

    @property
    def are_finite(self) -> bool:
        """Whether every response is a finite number; if not, the run has diverged."""
        return all(map(math.isfinite, (*self.stages, *self.relative)))

    @classmethod
    def read(cls, folder: Path) -> Responses:
        """The responses of a finished run's folder."""
        return read_record(cls, folder / RESPONSES)

    def write(self, folder: Path) -> None:
        """Write ``responses.json``."""
        write_json(folder / RESPONSES, asdict(self))


@dataclass(frozen=True)
class Progress:
    """How far a running run is, as of a moment ago; errors and losses are those of the last evaluation."""

    iteration: int
    iterations: int
    epoch: float
    test_error: float | None
    train_loss: float | None
    images_per_second: float
    seconds_left: float

    @classmethod
    def read(cls, folder: Path) -> Progress | None:
        """The progress of a run's folder; None while there is none, or it is being replaced."""
        try:
            return read_record(cls, folder / PROGRESS)
        except DamagedError:
            return None

    def write(self, folder: Path) -> None:
        """Write ``progress.json`` without waiting for the disk: nobody needs it after a crash."""
        temporary = folder / f".{PROGRESS}.tmp"
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(folder / PROGRESS)


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
