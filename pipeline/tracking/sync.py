"""MLflow rebuilt from the files of the runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.progress import progress_bar
from pipeline.runs.finished import read_finished
from pipeline.runs.records import METRICS
from pipeline.tracking.describe import Described
from pipeline.tracking.parents import log_best_errors
from pipeline.tracking.runs import ensure_run, finish_run, is_complete
from pipeline.tracking.store import initialise, tolerate_errors
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("pipeline.tracking")

STATUS = {"finished": "FINISHED", "failed": "FAILED", "paused": "KILLED", "running": "RUNNING"}


@dataclass(frozen=True)
class SyncResult:
    """What `sync` did. `failed` names the folders that MLflow did not take."""

    runs: int
    created: int
    points: int
    failed: tuple[str, ...]


def sync(uri: str, folders: Sequence[Path], *, parent: str | None = None) -> SyncResult:
    """Log what MLflow lacks of the run folders: runs, points, constants and files, nothing twice.

    Of folders with one name (in the store and published) the first counts. A folder without provenance, of a run that
    never started, is passed over; a finished run that is damaged is not taken.

    Args:
        parent: id of the run of the search that they are trials of.
    """
    folders = list({folder.name: folder for folder in reversed(folders)}.values())[::-1]
    if not initialise(uri):
        return SyncResult(0, 0, 0, tuple(folder.name for folder in folders))
    runs: list[Described] = []
    created = points = 0
    failed = []
    with progress_bar("synchronise runs", len(folders)) as advance:
        for folder in folders:
            try:
                run = Described.read(folder, parent)
                if run.provenance is None:
                    continue
                if lexists(folder / METRICS):
                    read_finished(folder)
                done = _sync_run(uri, run)
            except UserError as error:
                logger.warning("%s", error)
                done = None
            if done is None:
                failed.append(folder.name)
            else:
                runs.append(run)
                created, points = created + done[0], points + done[1]
            advance(1)
    _log_best_errors(uri, runs)
    return SyncResult(len(runs), created, points, tuple(failed))


_log_best_errors = tolerate_errors(log_best_errors)


@tolerate_errors
def _sync_run(client: MlflowClient, run: Described) -> tuple[bool, int]:
    """Whether the run is new, and how many points were missing."""
    assert run.provenance is not None
    status = STATUS[run.provenance.status]
    if is_complete(client, run, status):
        return False, 0
    run_id, created = ensure_run(client, run, run.provenance.profile)
    return created, finish_run(client, run_id, run, status)[1]
