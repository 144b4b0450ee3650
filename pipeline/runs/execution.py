"""How and where a run is executed. Nothing here changes its numbers, but threads may change their last digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pipeline.utils.limits import Ge, Gt, Le

STOP_FILE = "stop"  # a file of this name in a run's folder asks it to take a checkpoint and stop
YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Resources:
    """What each run is given, and how many run at once.

    Attributes:
        workers: processes that share the batches of a run.
        threads: CPU threads of each worker.
        gpus: GPUs of each worker; "auto" takes what the cluster has.
        max_parallel: runs at once, at most; None for as many as fit.
        max_failures: how often a run is restarted after a worker has died.
    """

    workers: Annotated[int, Gt(0), Le(1024)]
    threads: Annotated[int, Gt(0), Le(1024)]
    gpus: Literal["auto"] | Annotated[float, Ge(0), Le(1024)]
    max_parallel: Annotated[int, Gt(0), Le(100_000)] | None
    max_failures: Annotated[int, Ge(0), Le(1000)]


@dataclass(frozen=True)
class Checkpoints:
    """How many seconds lie between checkpoints, and how many checkpoints are kept."""

    seconds: Annotated[float, Gt(0), Le(YEAR)] = 60.0
    keep: Annotated[int, Gt(0), Le(1000)] = 2


@dataclass(frozen=True)
class Execution:
    """How and where a run is executed.

    Attributes:
        folder: the run's folder in the store.
        prepared: folder of the prepared data.
        noisy: folder of the noisy labels; None for clean ones.
        profile: name of the profile, for the record.
        threads: CPU threads of each worker.
        gpus: share of a GPU that each worker has, for the record.
        checkpoints: time between checkpoints, and how many are kept.
        checkpoint_iterations: or iterations between them, if not None.
        stop_at: when the run is paused, in seconds since 1970 (None: never).
        commit: the commit of the code, for the record.
        dirty: whether the working tree differed from it.
        command: the command that was typed.
        mlflow_run_id: the run's entry in MLflow, for the record.
        system_metrics: whether CPU, memory and GPU are sampled during the run.
        store: URL of the run store, if it is behind one; each worker then has a folder of its own.
        remote: URL that a node without the prepared images downloads them from (None: no download).
    """

    folder: Path
    prepared: Path
    noisy: Path | None
    profile: str
    threads: int = 1
    gpus: float = 0.0
    checkpoints: Checkpoints = Checkpoints()
    checkpoint_iterations: int | None = None
    stop_at: float | None = None
    commit: str | None = None
    dirty: bool = False
    command: str = ""
    mlflow_run_id: str | None = None
    system_metrics: bool = False
    store: str | None = None
    remote: str | None = None
