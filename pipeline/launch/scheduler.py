"""Train every pending run of a plan under Ray, as many at once as the resources allow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline import runs
from pipeline.data.remote import RemoteFolder
from pipeline.launch import placement
from pipeline.launch.driver import Driver
from pipeline.launch.placement import Share
from pipeline.launch.progress import ProgressTable
from pipeline.launch.ray_process import RayLostError, Supervisor
from pipeline.runs.execution import STOP_FILE, Execution, Resources
from pipeline.runs.records import LOG
from pipeline.runs.run_lock import lock_run
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.signals import interruptible

REFRESH_SECONDS = 1.0
AHEAD = 2  # runs that are started before there is room for them: they are ready, and Ray lets them begin, when there is


@dataclass
class Summary:
    """How the runs of a launch ended.

    Attributes:
        finished, paused: names of runs.
        failed: names of runs, and why they failed.
        interrupted: the signal that ended the launch, if one did.
        ray_lost: whether Ray died more often than it may, so that no other run was begun.
    """

    finished: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: int | None = None
    ray_lost: bool = False


def pending(driver: Driver, only: str = "*") -> list[RunSpec]:
    """The runs of the plan that are neither in the store nor published, the longest first."""
    planned = driver.plan.runs
    chosen = [run for run in planned.values() if fnmatchcase(run.name, only) or fnmatchcase(run.experiment, only)]
    if not chosen:
        raise UserError(f"--only {only!r}: fits no run of the plan, which has {', '.join(planned)}")
    chosen.sort(key=lambda run: -run.cost.training_multiply_adds)
    specs = [run.spec for run in chosen]
    driver.fetch()
    return [spec for spec in specs if runs.locate(spec, driver.store, driver.root / runs.PUBLISHED) is None]


def wait_for_others(driver: Driver, specs: Sequence[RunSpec]) -> bool:
    """Wait until no other process of this machine trains one of some runs; return whether there was one.

    A `dvc repro` that was killed leaves such a process, which ends once it notices.
    """
    waited = False
    for folder in (driver.store / spec.folder_name for spec in specs):
        while folder.exists():
            try:
                with lock_run(folder):
                    break
            except UserError as problem:
                if not waited:
                    print(f"waiting: {problem}", file=sys.stderr, flush=True)
                waited = True
                time.sleep(REFRESH_SECONDS)
    return waited


def launch(driver: Driver, specs: Sequence[RunSpec], table: ProgressTable) -> Summary:
    """Train runs side by side; one that fails does not stop the others.

    Raises:
        UserError: if the cluster cannot hold the runs, or lacks their data.
        RayLostError: if Ray does not start.
    """
    from pipeline.launch.ray_train import train_under_ray

    summary, resources = Summary(), driver.resources
    url = driver.mirror.store.url if driver.mirror else None
    with (
        driver.tracked(),
        Supervisor(driver.root, resources.max_failures, table.note, lambda: summary.interrupted is not None) as ray,
    ):
        worker_resources, slots = ray.call(_room, resources, driver.store, url)
        for lacking in check_data(driver, specs, worker_resources, ray.call):
            table.note(f"{lacking.folder}: missing on {', '.join(lacking.nodes)}, downloaded from {lacking.remote.url}")
            ray.call(placement.download, lacking.nodes, lacking.folder, lacking.remote)
        workers = worker_resources.describe(resources.workers)
        table.note(f"{len(specs)} runs to train, {min(slots, len(specs))} at once, each on {workers}")
        table.expect({spec.name: driver.plan.runs[spec.name].cost.training_multiply_adds for spec in specs})

        def train(spec: RunSpec, execution: Execution) -> str:
            return ray.call(train_under_ray, spec, execution, resources, worker_resources)

        run_all(driver, specs, train, slots + (0 if resources.max_parallel else AHEAD), table, summary)
    if summary.finished and driver.uri is not None and summary.interrupted is None:
        _log_models(driver, driver.uri)
    return summary


def _room(resources: Resources, store: Path, url: str | None) -> tuple[Share, int]:
    """Return what each worker gets, and how many runs go at once; refuse a store that a node does not see."""
    worker_resources = placement.share(resources)
    placement.check_shared(store, url)
    return worker_resources, placement.parallel(resources, worker_resources)


def _log_models(driver: Driver, uri: str) -> None:
    """Log the networks of the plan's finished runs as models: all, the best, or none, as the plan says."""
    from pipeline import tracking

    plan = driver.plan
    found = [(driver.store / run.spec.folder_name, run.spec) for run in plan.runs.values()]
    finished = [folder for folder, spec in found if runs.finished(folder, spec.identity)]
    tracking.log_models(uri, finished, plan.profile, plan.tracking.models, driver.root)


@dataclass(frozen=True)
class Lacking:
    """Prepared data that nodes lack, and where they can download it from."""

    folder: Path
    nodes: Sequence[str]
    remote: RemoteFolder


def _call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def check_data(
    driver: Driver,
    specs: Sequence[RunSpec],
    worker_resources: Share,
    call: Callable[..., Any] = _call_here,
) -> list[Lacking]:
    """Return the data of the runs that nodes lack and `data.remote` has.

    Args:
        call: calls a function, with arguments, in a process that is connected to Ray.

    Raises:
        UserError: if nodes lack data that no remote has.
    """
    wanted: dict[tuple[Path, str], RemoteFolder | None] = {}
    for spec in specs:
        execution, data = driver.execution(spec), spec.data
        remote = RemoteFolder(execution.remote, data.dataset, data.checksum) if execution.remote else None
        wanted[execution.prepared, data.checksum] = remote
        if execution.noisy is not None and data.noise_checksum is not None:
            wanted[execution.noisy, data.noise_checksum] = None
    found = []
    for (folder, checksum), remote in wanted.items():
        nodes = call(placement.nodes_without, folder, checksum, worker_resources)
        if nodes and remote is None:
            raise UserError(
                f"{folder}: missing on {', '.join(nodes)}, or other data there; with several nodes each must have the"
                " data: in a shared folder, as a copy, or, for images packed into shards, through `data.remote`, the"
                " URL of an object store that a node downloads them from"
            )
        if nodes and remote is not None:
            remote.check()
            found.append(Lacking(folder, nodes, remote))
    return found


def run_all(
    driver: Driver,
    specs: Sequence[RunSpec],
    train: Callable[[RunSpec, Execution], str],
    slots: int,
    table: ProgressTable,
    summary: Summary,
) -> None:
    """Keep `slots` runs in training until all have ended, and record how.

    Ctrl-C, SIGTERM or SIGHUP asks the runs in training to take a checkpoint and stop; a second Ctrl-C leaves them.
    """
    waiting, training = list(specs), dict[Future[str], tuple[RunSpec, Execution]]()
    pool = ThreadPoolExecutor(slots, thread_name_prefix="run")
    with interruptible() as interrupted:
        try:
            while waiting or training:
                full = driver.out_of_time or summary.ray_lost or interrupted.is_set()
                while waiting and len(training) < slots and not full:
                    spec = waiting.pop(0)
                    execution = _begun(driver, spec, table, summary)
                    if execution is not None:
                        training[pool.submit(train, spec, execution)] = (spec, execution)
                if not training:
                    summary.paused += [spec.name for spec in waiting]
                    break
                for future in wait(training, timeout=REFRESH_SECONDS, return_when=FIRST_COMPLETED).done:
                    spec, execution = training.pop(future)
                    _ended(driver, spec, execution, future, table, summary)
                if interrupted.is_set() and summary.interrupted is None:
                    summary.interrupted = interrupted.number
                    table.note("stopping: every run takes a checkpoint first (Ctrl-C again leaves at once)")
                    for _, execution in training.values():
                        (execution.folder / STOP_FILE).touch()
                table.refresh()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for spec, execution in training.values():  # only after a second interruption
                driver.interrupt(execution)
                table.ended(spec, "interrupted", None)


def _begun(driver: Driver, spec: RunSpec, table: ProgressTable, summary: Summary) -> Execution | None:
    """Begin a run; return None if it failed, e.g. because its folder cannot be written, or was finished meanwhile."""
    folder = driver.store / spec.folder_name
    table.begun(spec, folder)
    try:
        if driver.claim(spec):
            return driver.begin(spec)
        table.note(f"{spec.name}: another process has finished it meanwhile")
        _note(spec, folder, "finished", None, table, summary)
    except (UserError, OSError) as problem:
        _note(spec, folder, "failed", one_line(problem), table, summary)
    return None


def _ended(
    driver: Driver, spec: RunSpec, execution: Execution, future: Future[str], table: ProgressTable, summary: Summary
) -> None:
    error = future.exception()
    if isinstance(error, RayLostError):
        summary.ray_lost = True
        if summary.interrupted is not None:
            driver.interrupt(execution)
            _note(spec, execution.folder, "paused", None, table, summary)
            return
    outcome = f"failed: {error}" if error else future.result()
    reason = outcome.removeprefix("failed: ") if outcome.startswith("failed") else None
    try:
        status = driver.end(execution, reason)
    except (UserError, OSError) as problem:
        status, reason = "failed", reason or one_line(problem)
    _note(spec, execution.folder, status, reason, table, summary)


def _note(spec: RunSpec, folder: Path, status: str, reason: str | None, table: ProgressTable, summary: Summary) -> None:
    """Record how a run ended, and show it."""
    log = f" (see {folder / LOG})" if (folder / LOG).exists() else ""  # a worker that never started has none
    why = None if status in ("finished", "paused") else f"{reason or 'its worker died'}{log}"
    try:
        table.ended(spec, status, why)
    except (UserError, OSError) as problem:  # its history cannot be read
        why = why or f"{one_line(problem)}{log}"
        table.note(f"{spec.name} failed: {why}")
    if why is not None:
        summary.failed[spec.name] = why
    elif status == "finished":
        summary.finished.append(spec.name)
    else:
        summary.paused.append(spec.name)
