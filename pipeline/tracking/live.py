"""Curves while they grow, logged by a background thread: training never waits for MLflow."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.tracking.points import Curves, Point, log_points, point_of, read_points
from pipeline.tracking.store import survives
from pipeline.training.records import HISTORY, TIMING, Provenance

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAITING_ROWS = 1000
POLL_SECONDS = 2.0


@survives
def _log(client: MlflowClient, run_id: str, points: list[Point]) -> None:
    log_points(client, run_id, points)


class EpochLog:
    """Logs the rows of one run as its own process makes them, one call an epoch.

    Rows up to `after_iteration` are there already. A row that MLflow does not take is dropped: `close_run` and
    `sync` add it from the files. A process that has not imported MLflow pays 6 to 9 CPU-seconds for it here; where
    runs train in workers of their own, a `Follower` on the driver costs them nothing.
    """

    def __init__(self, uri: str, run_id: str, after_iteration: int = 0) -> None:
        self._uri, self._run_id, self._after = uri, run_id, after_iteration
        self._rows: queue.Queue[list[Point] | None] = queue.Queue(WAITING_ROWS)
        self._thread = threading.Thread(target=self._work, name="epoch-log", daemon=True)
        self._thread.start()

    def log(self, history_row: Mapping[str, float], timing_row: Mapping[str, float]) -> None:
        """Hand over the rows of an epoch; never waits, never raises."""
        if history_row["iteration"] <= self._after:
            return
        now = int(1000 * time.time())
        with contextlib.suppress(queue.Full):
            self._rows.put_nowait([point_of(history_row, now), point_of(timing_row, now)])

    def close(self, timeout: float = 5.0) -> None:
        """Wait until everything is logged, `timeout` seconds at most."""
        with contextlib.suppress(queue.Full):
            self._rows.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (points := self._rows.get()) is not None:
            _log(self._uri, self._run_id, points)


@dataclass
class _Followed:
    folder: Path
    curves: Curves | None = None
    seen: list[tuple[int, int]] = field(default_factory=list)

    def changes(self) -> list[tuple[int, int]]:
        """Size and time of change of the files that hold the curves."""
        found = [path.stat() for name in (HISTORY, TIMING) if (path := self.folder / name).exists()]
        return [(stat.st_size, stat.st_mtime_ns) for stat in found]


class Follower:
    """Logs the curves of any number of runs from their folders, wherever their workers write them.

    One for the driver: workers need neither MLflow nor a way to its server, SQLite has a single writer, and what an
    unreachable server misses is simply still in the files at the next look. Use as a context manager.
    """

    def __init__(self, uri: str, poll_seconds: float = POLL_SECONDS) -> None:
        self._uri, self._poll_seconds = uri, poll_seconds
        self._runs: dict[str, _Followed] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(self._poll_seconds + 5)

    def add(self, run_id: str, folder: Path) -> None:
        """Follow a run from now on."""
        with self._lock:
            self._runs[run_id] = _Followed(folder)

    def remove(self, run_id: str) -> None:
        """Follow it no longer; call this before `close_run`, which logs the rest."""
        with self._lock:
            self._runs.pop(run_id, None)

    def _work(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            with self._lock:
                runs = list(self._runs)
            for run_id in runs:
                with self._lock:
                    followed = self._runs.get(run_id)
                    if followed is not None and not self._stop.is_set():
                        self._look(run_id, followed)

    def _look(self, run_id: str, followed: _Followed) -> None:
        changes = followed.changes()
        if changes == followed.seen:
            return
        if _add(self._uri, run_id, followed):
            followed.seen = changes


@survives
def _add(client: MlflowClient, run_id: str, followed: _Followed) -> bool:
    """Log what the files have and MLflow has not."""
    try:
        points = read_points(followed.folder, Provenance.read(followed.folder))
    except UserError:
        return False
    followed.curves = followed.curves or Curves(client, run_id)
    followed.curves.add(client, points)
    return True
