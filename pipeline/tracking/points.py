"""The points of a run's curves: from its files, into MLflow, each once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.describe import summary
from pipeline.training.records import HISTORY, TIMING, Evaluation, Provenance, Segment, Timing, read_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The metric whose presence at a step says that the row is there: MLflow stores the metrics of one call all or none.
HISTORY_MARK, TIMING_MARK = "test_error", "images_per_second"
BATCH = 1000  # metrics that one call may hold


@dataclass(frozen=True)
class Point:
    """One row of a curve: metrics at an iteration, and when they were measured (milliseconds since 1970)."""

    iteration: int
    metrics: Mapping[str, float]
    milliseconds: int


def read_points(folder: Path, provenance: Provenance | None) -> list[Point]:
    """All rows of `history.csv` and `timing.csv`."""
    segments = provenance.segments if provenance else ()
    rows: list[Evaluation | Timing] = [
        *read_rows(folder / HISTORY, Evaluation),
        *read_rows(folder / TIMING, Timing),
    ]
    return [point_of(asdict(row), measured_at(row.iteration, segments)) for row in rows]


def point_of(row: Mapping[str, float], milliseconds: int) -> Point:
    """A row of a history or a timing; its iteration is the step, everything else a metric."""
    metrics = {key: float(value) for key, value in row.items() if key not in ("iteration", "epoch")}
    if HISTORY_MARK in row:
        metrics["epoch"] = float(row["epoch"])
    return Point(int(row["iteration"]), metrics, milliseconds)


def measured_at(iteration: int, segments: Sequence[Segment]) -> int:
    """When an iteration ended, from the segment that it belongs to; now, where none is written yet."""
    for segment in reversed(segments):
        if segment.from_iteration < iteration <= segment.to_iteration:
            share = (iteration - segment.from_iteration) / (segment.to_iteration - segment.from_iteration)
            return milliseconds_of(segment.started) + int(1000 * share * segment.seconds)
    return int(1000 * time.time())


def milliseconds_of(moment: str) -> int:
    """An ISO 8601 time in milliseconds since 1970."""
    return int(1000 * datetime.fromisoformat(moment).timestamp())


class Curves:
    """The curves of one run in MLflow: knows which points are there, and adds only others."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.run_id = run_id
        self._present = {
            (mark, metric.step)
            for mark in (HISTORY_MARK, TIMING_MARK)
            for metric in client.get_metric_history(run_id, mark)
        }

    def add(self, client: MlflowClient, points: Iterable[Point]) -> int:
        """Log the points that are missing; their number."""
        missing = [point for point in points if (_mark(point), point.iteration) not in self._present]
        log_points(client, self.run_id, missing)
        self._present |= {(_mark(point), point.iteration) for point in missing}
        return len(missing)


def _mark(point: Point) -> str:
    return HISTORY_MARK if HISTORY_MARK in point.metrics else TIMING_MARK


def log_points(client: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    """Log points in as few calls as MLflow allows, none of them split over two calls."""
    from mlflow.entities import Metric

    batch: list[Metric] = []
    for point in points:
        metrics = [Metric(key, value, point.milliseconds, point.iteration) for key, value in point.metrics.items()]
        if len(batch) + len(metrics) > BATCH:
            client.log_batch(run_id, metrics=batch)
            batch = []
        batch += metrics
    if batch:
        client.log_batch(run_id, metrics=batch)


def log_summary(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log the numbers that a finished run has once; nothing where they are there already."""
    numbers = summary(folder)
    present = client.get_run(run_id).data.metrics
    missing = {key: value for key, value in numbers.items() if present.get(key) != value}
    if missing:
        log_points(client, run_id, [Point(int(numbers.get("iterations", 0)), missing, int(1000 * time.time()))])
