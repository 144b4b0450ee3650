"""The points of a run's curves, read from its files and logged once each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.records import HISTORY, TIMING, Evaluation, Provenance, Segment, Timing, read_rows
from pipeline.tracking.describe import ERROR
from pipeline.tracking.system import read_system

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # metrics that one call may hold
SENSITIVE = "test/loss"  # the metric in which two trainings of one run differ first
METRICS = {
    "train_loss": "train/loss",
    "train_error": "train/error",
    "test_loss": "test/loss",
    "test_error": ERROR,
    "top5_error": "test/top5_error",
    "learning_rate": "train/learning_rate",
    "seconds": "train/seconds",
    "images_per_second": "train/images_per_second",
}


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
    """All points that a run's files hold.

    Evaluations and timing by epoch (a last one that is not complete counts), samples of its machines by their number.
    While the run goes on, one file may be ahead of another: a row whose time is not known yet is left out.
    """
    timed = read_rows(folder / TIMING, Timing)
    evaluated = read_rows(folder / HISTORY, Evaluation)
    rows: list[tuple[int, Evaluation | Timing]] = [*enumerate(evaluated, start=1), *enumerate(timed, start=1)]
    moments = _moments(timed, provenance.segments if provenance else ())
    if provenance is None or provenance.status != "running":  # the time of the others will never be known
        moments = dict.fromkeys((row.iteration for _, row in rows), int(1000 * time.time())) | moments
    points = [Point(epoch, _metrics(row), moments[row.iteration]) for epoch, row in rows if row.iteration in moments]
    return points + [Point(number, values, milliseconds) for number, milliseconds, values in read_system(folder)]


def _metrics(row: Evaluation | Timing) -> dict[str, float]:
    return {METRICS[key]: float(value) for key, value in asdict(row).items() if key in METRICS and value is not None}


def _moments(timed: Sequence[Timing], segments: Sequence[Segment]) -> dict[int, int]:
    """When each evaluation was made, by iteration; the same while the run goes on and afterwards."""
    moments = {}
    before = 0.0  # seconds that the run had taken when a segment began
    for segment in segments:
        for row in timed:
            if row.iteration > segment.from_iteration:
                moments[row.iteration] = milliseconds_of(segment.started) + int(1000 * (row.seconds - before))
        before += segment.seconds
    return moments


def milliseconds_of(moment: str) -> int:
    """An ISO 8601 time in milliseconds since 1970."""
    return int(1000 * datetime.fromisoformat(moment).timestamp())


def add_points(client: MlflowClient, run_id: str, points: Iterable[Point]) -> int:
    """Log the points that MLflow does not have yet; their number."""
    missing = missing_points(client, run_id, points)
    log_points(client, run_id, missing)
    return len(missing)


def missing_points(client: MlflowClient, run_id: str, points: Iterable[Point]) -> list[Point]:
    """The points that MLflow does not have yet."""
    present: dict[str, set[int]] = {}
    missing = []
    for point in points:
        if point.mark not in present:
            present[point.mark] = {metric.step for metric in client.get_metric_history(run_id, point.mark)}
        if point.step not in present[point.mark]:
            missing.append(point)
    return missing


def contradicted(client: MlflowClient, run_id: str, points: Iterable[Point]) -> bool:
    """Whether MLflow has points that the files have not, or others.

    That happens when a run is resumed on other hardware from a checkpoint before its last evaluation.
    """
    truth = {point.step: point.metrics[SENSITIVE] for point in points if SENSITIVE in point.metrics}
    return any(metric.value != truth.get(metric.step) for metric in client.get_metric_history(run_id, SENSITIVE))


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
