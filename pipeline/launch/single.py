"""Train one run, in this process or under Ray Train."""

from __future__ import annotations

from dataclasses import replace

from pipeline.launch.driver import Driver
from pipeline.launch.progress import ProgressTable
from pipeline.launch.scheduler import REFRESH_SECONDS, Summary, launch
from pipeline.runs.spec import RunSpec
from pipeline.utils.signals import Interrupted, interruptible
from pipeline.utils.threads import repeated


def train_one(driver: Driver, spec: RunSpec, *, in_process: bool) -> tuple[str, str]:
    """Train a run to its end, or continue it.

    Returns:
        The status of the run (finished, paused or failed), and the reason where it failed.

    Raises:
        Interrupted: if a signal has paused it.
    """
    if in_process:
        return _in_process(driver, spec)
    with ProgressTable(1) as table:
        summary = launch(driver, [spec], table)
    status = _status(summary, spec.name)
    if status == "paused" and summary.interrupted is not None:
        raise Interrupted(summary.interrupted)
    return status, summary.failed.get(spec.name, "")


def _status(summary: Summary, name: str) -> str:
    if name in summary.failed:
        return "failed"
    return "finished" if name in summary.finished else "paused"


def _in_process(driver: Driver, spec: RunSpec) -> tuple[str, str]:
    import torch

    from pipeline.launch.worker_folder import worker_folder
    from pipeline.runs.records import Evaluation, Timing
    from pipeline.training.finish import DivergedError
    from pipeline.training.loop import train
    from pipeline.training.session import LocalSession
    from pipeline.utils.errors import UserError

    if not driver.claim(spec):
        return "finished", ""
    session = LocalSession("cuda" if torch.cuda.is_available() else "cpu")
    execution = replace(driver.begin(spec), gpus=float(session.device.type == "cuda"))
    error = None
    with interruptible() as interrupted, ProgressTable(1) as table:
        table.begun(spec, execution.folder)

        def show(row: Evaluation, timing: Timing) -> None:
            table.note(
                f"{spec.name}: epoch {row.epoch:.1f}, step {row.iteration}, train loss {row.train_loss:.4f},"
                f" test error {row.test_error:.2f} %, {timing.images_per_second:.0f} images/s"
            )

        with repeated(table.refresh, REFRESH_SECONDS, "progress"):
            try:
                with worker_folder(execution, first_here=True) as here:
                    train(spec, here, session, on_evaluation=show, should_stop=interrupted.is_set)
            except (UserError, DivergedError) as problem:
                error = str(problem)
        status = driver.end(execution, error)
        table.ended(spec, status, error)
    if status == "paused" and interrupted.is_set():
        raise Interrupted(interrupted.number)
    return status, error or ""
