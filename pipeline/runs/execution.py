"""How and where a run is executed: nothing here changes its numbers, but that threads may change their last digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STOP_FILE = "stop"  # a file of this name in a run's folder asks it to take a checkpoint and stop


@dataclass(frozen=True)
class Execution:
    """How and where a run is executed.

    Attributes:
        folder: the run's folder in the store.
        prepared, noisy: folders of the prepared data and of the noisy labels (None: clean).
        profile: name of the profile, for the record.
        threads: CPU threads of each worker.
        gpus: share of a GPU that each worker has, for the record.
        checkpoint_seconds: time between checkpoints.
        checkpoint_iterations: or iterations between them, if not None.
        keep_checkpoints: how many stay.
        stop_at: when the run is paused, in seconds since 1970 (None: never).
        commit, dirty, command: origin of the code, for the record.
        mlflow_run_id: the run's entry in the tracker, for the record.
        system_metrics: whether every machine is sampled meanwhile; see `pipeline.launch.worker_folder`.
        store: URL of the store, if it is behind one; each worker then has a folder of its own.
        remote: URL from below which a node that lacks the prepared photographs brings them (None: from nowhere).
    """

    folder: Path
    prepared: Path
    noisy: Path | None
    profile: str
    threads: int = 1
    gpus: float = 0.0
    checkpoint_seconds: float = 60.0
    checkpoint_iterations: int | None = None
    keep_checkpoints: int = 2
    stop_at: float | None = None
    commit: str | None = None
    dirty: bool = False
    command: str = ""
    mlflow_run_id: str | None = None
    system_metrics: bool = False
    store: str | None = None
    remote: str | None = None
