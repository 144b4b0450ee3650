"""Train every pending run of a plan in one Ray session, as many at once as the resources allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import runs
from pipeline.data.remote import RemoteFolder
from pipeline.launch.driver import Driver
from pipeline.launch.progress import Board
from pipeline.runs.execution import STOP, Execution
from pipeline.runs.records import LOG
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.signals import interruptible

if TYPE_CHECKING:
    from pipeline.launch.cluster import Share

REFRESH_SECONDS = 1.0
AHEAD = 2  # runs that are started before there is room for them: they are ready, and Ray lets them begin, when there is


@dataclass
class Summary:
    """How the runs of a launch ended: names by status, and the reasons of those that failed."""

    finished: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


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


def launch(driver: Driver, specs: Sequence[RunSpec], board: Board) -> Summary:
    """Train runs side by side. One that fails stops no other."""
    from pipeline.launch import cluster, ray_train

    summary = Summary()
    with cluster.connected(driver.root), driver.tracked():
        cluster.quiet()
        each = cluster.share(driver.resources)
        cluster.check_shared(driver.store, driver.mirror.store.url if driver.mirror else None)
        for lacking in check_data(driver, specs, each):
            board.note(f"{lacking.folder}: missing on {', '.join(lacking.nodes)}, downloaded from {lacking.remote.url}")
            cluster.bring(lacking.nodes, lacking.folder, lacking.remote)
        slots = cluster.parallel(driver.resources, each)
        on = each.describe(driver.resources.workers)
        board.note(f"{len(specs)} runs to train, {min(slots, len(specs))} at once, each on {on}")

        costs = {spec.name: driver.plan.runs[spec.name].cost.training_multiply_adds for spec in specs}
        board.expect(costs)

        slots += 0 if driver.resources.max_parallel else AHEAD
        controllers = ray_train.start_controllers(slots)

        def train(spec: RunSpec, execution: Execution) -> str:
            return ray_train.train_under_ray(spec, execution, driver.resources, each, controllers)

        run_all(driver, specs, train, slots, board, summary)
        if summary.finished and driver.uri is not None:
            _log_models(driver, driver.uri)
    return summary


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


def check_data(driver: Driver, specs: Sequence[RunSpec], each: Share) -> list[Lacking]:
    """What nodes lack of the data of the runs and `data.remote` has; what it has not is refused. Needs a session."""
    from pipeline.launch import cluster

    wanted: dict[tuple[Path, str], RemoteFolder | None] = {}
    for spec in specs:
        execution, data = driver.execution(spec), spec.data
        remote = RemoteFolder(execution.remote, data.dataset, data.checksum) if execution.remote else None
        wanted[execution.prepared, data.checksum] = remote
        if execution.noisy is not None and data.noise_checksum is not None:
            wanted[execution.noisy, data.noise_checksum] = None
    found = []
    for (folder, checksum), remote in wanted.items():
        nodes = cluster.nodes_without(folder, checksum, each)
        if nodes and remote is None:
            raise UserError(
                f"{folder}: missing on {', '.join(nodes)}, or other data there; with several nodes the data must be"
                " there on each: in a shared folder, as a copy, or for photographs by way of `data.remote`, the URL of"
                " an object store from where a node brings them"
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
    board: Board,
    summary: Summary,
) -> None:
    """Keep `slots` runs going until all have ended, and note how.

    The first Ctrl-C, or SIGTERM, asks those that are going to take a checkpoint and stop; a second one leaves them.
    """
    waiting, going = list(specs), dict[Future[str], tuple[RunSpec, Execution]]()
    pool = ThreadPoolExecutor(slots, thread_name_prefix="run")
    with interruptible() as interrupted:
        try:
            while waiting or going:
                while waiting and len(going) < slots and not (driver.out_of_time or interrupted.is_set()):
                    spec = waiting.pop(0)
                    execution = _begun(driver, spec, board, summary)
                    if execution is not None:
                        going[pool.submit(train, spec, execution)] = (spec, execution)
                if not going:
                    summary.paused += [spec.name for spec in waiting]
                    break
                for future in wait(going, timeout=REFRESH_SECONDS, return_when=FIRST_COMPLETED).done:
                    spec, execution = going.pop(future)
                    _ended(driver, spec, execution, future, board, summary)
                if interrupted.is_set() and not summary.interrupted:
                    summary.interrupted = True
                    board.note("stopping: every run takes a checkpoint first (Ctrl-C again leaves at once)")
                    for _, execution in going.values():
                        (execution.folder / STOP).touch()
                board.refresh()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for spec, execution in going.values():  # only after a second interruption
                driver.interrupt(execution)
                board.ended(spec, "interrupted", None)


def _begun(driver: Driver, spec: RunSpec, board: Board, summary: Summary) -> Execution | None:
    """Begin a run; return None if it failed, e.g. because its folder cannot be written, or was finished meanwhile."""
    folder = driver.store / spec.folder_name
    board.begun(spec, folder)
    try:
        if driver.claim(spec):
            return driver.begin(spec)
        board.note(f"{spec.name}: another process has finished it meanwhile")
        _note(spec, folder, "finished", None, board, summary)
    except (UserError, OSError) as problem:
        _note(spec, folder, "failed", one_line(problem), board, summary)
    return None


def _ended(
    driver: Driver, spec: RunSpec, execution: Execution, future: Future[str], board: Board, summary: Summary
) -> None:
    error = future.exception()
    outcome = f"failed: {error}" if error else future.result()
    reason = outcome.removeprefix("failed: ") if outcome.startswith("failed") else None
    try:
        status = driver.end(execution, reason)
    except (UserError, OSError) as problem:
        status, reason = "failed", reason or one_line(problem)
    _note(spec, execution.folder, status, reason, board, summary)


def _note(spec: RunSpec, folder: Path, status: str, reason: str | None, board: Board, summary: Summary) -> None:
    """Keep how a run ended, and show it."""
    log = f"(see {folder / LOG})"
    why = None if status in ("finished", "paused") else f"{reason or 'its worker died'} {log}"
    try:
        board.ended(spec, status, why)
    except (UserError, OSError) as problem:  # its history cannot be read
        why = why or f"{one_line(problem)} {log}"
        board.note(f"{spec.name} failed: {why}")
    if why is not None:
        summary.failed[spec.name] = why
    elif status == "finished":
        summary.finished.append(spec.name)
    else:
        summary.paused.append(spec.name)
