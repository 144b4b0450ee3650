"""The points of a run's curves: from its files, into MLflow, each once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.describe import summary
from pipeline.tracking.system import read_system
from pipeline.training.records import HISTORY, TIMING, Evaluation, Provenance, Segment, Timing, read_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # metrics that one call may hold


@dataclass(frozen=True)
class Point:
    """One row of a file: metrics at a step, and when they were measured (milliseconds since 1970)."""

    step: int
    metrics: Mapping[str, float]
    milliseconds: int

    @property
    def mark(self) -> str:
        """The metric that stands for all of the row: MLflow stores the metrics of one call all or none."""
        return next(iter(self.metrics))


def read_points(folder: Path, provenance: Provenance | None) -> list[Point]:
    """All points that a run's files hold: history and timing by iteration, samples of its machines by number."""
    segments = provenance.segments if provenance else ()
    history = [
        Point(row.iteration, _metrics(row, "iteration"), measured_at(row.iteration, segments))
        for row in read_rows(folder / HISTORY, Evaluation)
    ]
    timing = [
        Point(row.iteration, _metrics(row, "iteration", "epoch"), measured_at(row.iteration, segments))
        for row in read_rows(folder / TIMING, Timing)
    ]
    system = [Point(number, values, milliseconds) for number, milliseconds, values in read_system(folder)]
    return [*history, *timing, *system]


def _metrics(row: Evaluation | Timing, *without: str) -> dict[str, float]:
    return {key: float(value) for key, value in asdict(row).items() if key not in without}


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


def add_points(client: MlflowClient, run_id: str, points: Iterable[Point]) -> int:
    """Log the points that MLflow does not have yet; their number."""
    present: dict[str, set[int]] = {}
    missing = []
    for point in points:
        if point.mark not in present:
            present[point.mark] = {metric.step for metric in client.get_metric_history(run_id, point.mark)}
        if point.step not in present[point.mark]:
            missing.append(point)
    log_points(client, run_id, missing)
    return len(missing)


def log_points(client: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    """Log points in as few calls as MLflow allows, none of them split over two calls."""
    from mlflow.entities import Metric

    batch: list[Metric] = []
    for point in points:
        metrics = [Metric(key, value, point.milliseconds, point.step) for key, value in point.metrics.items()]
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
