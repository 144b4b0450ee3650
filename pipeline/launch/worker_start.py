"""Workers that were given room start within a minute, or their run says why not."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from pipeline.utils.errors import UserError

WINDOW_SECONDS = 27.0  # two of them pass before a start is given up
OF_RAY = re.compile(r":|\[\d{4}-\d\d-\d\d |\d{4}-\d\d-\d\d [^\t]*\tINFO")  # lines of its logs that are no cause
PATIENCE_SECONDS = 600.0  # for processes that start, but slowly; and on a cluster of RAY_ADDRESS, which is not seen


class PunctualWorkerGroup(WorkerGroup):
    """Ray Train's workers, with a limit: Ray waits for ever for one whose process dies before it has begun."""

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        """Do as Ray does, but for the controller, which is not an actor here; workers ask it for nothing."""
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[rank] for name, values in train_context_args.items()},
                )
                for rank, worker in enumerate(workers)
            ]
        )

    def _create_workers(self, *arguments: Any, **options: Any) -> Any:
        pool = ThreadPoolExecutor(1)
        try:  # when this raises, Ray removes the actors, which ends the thread
            return wait_for_start(pool.submit(super()._create_workers, *arguments, **options), "its workers")
        finally:
            pool.shutdown(wait=False)


def wait_for_start(started: Future[Any], what: str) -> Any:
    """Return the result of a start, as long as there is a process that may bring it about.

    Raises:
        UserError: if there is none; with the last words of a process that has died.
    """
    begun, before = time.monotonic(), _starting()
    known = before
    while True:
        try:
            return started.result(WINDOW_SECONDS)
        except NotYetError:
            now = _starting()
            seconds = time.monotonic() - begun
            alive = (now & known) - before or os.environ.get("RAY_ADDRESS")
            if seconds > PATIENCE_SECONDS or (seconds > 1.9 * WINDOW_SECONDS and not alive):
                raise UserError(f"{what} had room, but did not start within {seconds:.0f} s: {_last_words()}") from None
            known = now


def _starting() -> set[tuple[int, str]]:
    """Return number and title of every process on this machine's cluster that is, or soon will be, a worker."""
    found, here = set(), psutil.Process()
    above = here.parent()
    root = above if above is not None and above.name() == "raylet" else here  # in a trial, a worker starts workers
    for process in root.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "default_worker.py" in title or "RayTrainWorker" in title:
            found.add((process.pid, "RayTrainWorker" if "RayTrainWorker" in title else title))
    return found


def _last_words() -> str:
    """Return the last line that a worker of this machine's cluster wrote, and where the others are."""
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    # A worker that dies before it has a log of its own writes to that of the raylet.
    patterns = ("worker*.err", "raylet.err", "runtime_env_setup*.log")
    files = [path for pattern in patterns for path in logs.glob(pattern)]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for line in reversed(lines):
            if line.strip() and not OF_RAY.match(line):
                return f"{line.strip()[:300]} ({path})"
    return f"its process left no message in {logs}"
