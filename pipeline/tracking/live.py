"""Curves while they grow: read from the run folders, logged by a background thread of the driver."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.records import HISTORY, SYSTEM, TIMING, Provenance
from pipeline.tracking.points import add_points, read_points
from pipeline.tracking.store import tolerate_errors
from pipeline.utils.errors import UserError, one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("pipeline.tracking")

POLL_SECONDS = 2.0
SYSTEM_SECONDS = 30.0  # samples of the machines come every few seconds: they wait for an epoch, or for so long


@dataclass
class _Followed:
    run_id: str
    folder: Path
    seen: list[tuple[int, int]] = field(default_factory=list)
    looked: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted: bool = True

    def changes(self) -> list[tuple[int, int]]:
        """Size and time of change of the files that hold the curves."""
        paths = [self.folder / HISTORY, self.folder / TIMING]
        if time.monotonic() - self.looked >= SYSTEM_SECONDS:
            paths += sorted(self.folder.glob(SYSTEM))
        found = [path.stat() for path in paths if path.exists()]
        return [(stat.st_size, stat.st_mtime_ns) for stat in found]


class Follower:
    """Logs the curves of any number of runs from their folders, one call for each new epoch.

    Training never waits for it: the workers write their files and know nothing of MLflow, whose import alone costs
    6 to 9 CPU-seconds in a process. SQLite has a single writer, and what an unreachable server misses is still in the
    files at the next look. Use as a context manager, on the driver.
    """

    def __init__(self, uri: str, poll_seconds: float = POLL_SECONDS) -> None:
        self._uri, self._poll_seconds = uri, poll_seconds
        self._runs: dict[str, _Followed] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-follower", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(self._poll_seconds)

    def add(self, run_id: str, folder: Path) -> None:
        """Follow a run from now on."""
        with self._lock:
            self._runs[run_id] = _Followed(run_id, folder)

    def remove(self, run_id: str) -> None:
        """Stop following a run; for before `close_run`, which logs the rest."""
        with self._lock:
            followed = self._runs.pop(run_id, None)
        if followed is not None:
            with followed.lock:  # a look that has begun ends first, so that no point is logged twice
                followed.wanted = False

    def _work(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            with self._lock:
                runs = list(self._runs.values())
            for followed in runs:
                with followed.lock:
                    if followed.wanted and not self._stop.is_set():
                        self._try_to_look(followed)

    def _try_to_look(self, followed: _Followed) -> None:
        """Look at a run; one whose files cannot be understood is left to `close_run`."""
        try:
            self._look(followed)
        except Exception as error:
            followed.wanted = False
            logger.warning("%s: no longer followed in MLflow: %s", followed.folder.name, one_line(error))

    def _look(self, followed: _Followed) -> None:
        changes = followed.changes()
        if changes != followed.seen[: len(changes)] and _add(self._uri, followed):
            followed.seen, followed.looked = changes, time.monotonic()


@tolerate_errors
def _add(client: MlflowClient, followed: _Followed) -> bool:
    """Log the points that MLflow lacks; return False where the files cannot be read just now."""
    try:
        points = read_points(followed.folder, Provenance.read(followed.folder))
    except UserError:
        return False
    add_points(client, followed.run_id, points)
    return True
