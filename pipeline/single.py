"""Train one run, in this process or under Ray Train."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.display import Board
from pipeline.driver import Driver
from pipeline.launch import Summary, launch
from pipeline.training.spec import RunSpec


def train_one(driver: Driver, spec: RunSpec, *, in_process: bool) -> tuple[str, str]:
    """Train a run to its end, or continue it.

    Returns:
        its status (finished, paused or failed), and the reason where it failed.
    """
    if in_process:
        return _in_process(driver, spec)
    with Board(1) as board:
        summary = launch(driver, [spec], board)
    return _status(summary, spec.name), summary.failed.get(spec.name, "")


def _status(summary: Summary, name: str) -> str:
    if name in summary.failed:
        return "failed"
    return "finished" if name in summary.finished else "paused"


def _in_process(driver: Driver, spec: RunSpec) -> tuple[str, str]:
    import torch

    from pipeline.errors import UserError
    from pipeline.training.loop import DivergedError, train
    from pipeline.training.records import Evaluation, Timing
    from pipeline.training.session import LocalSession

    def show(row: Evaluation, timing: Timing) -> None:
        print(
            f"{spec.name}: epoch {row.epoch:.1f}, iteration {row.iteration}, train loss {row.train_loss:.4f},"
            f" test error {row.test_error:.2f} %, {timing.images_per_second:.0f} images/s",
            flush=True,
        )

    execution = driver.begin(spec)
    session = LocalSession("cuda" if torch.cuda.is_available() else "cpu")
    error = None
    with _interruptible() as interrupted:
        try:
            train(spec, execution, session, on_evaluation=show, should_stop=interrupted.is_set)
        except (UserError, DivergedError) as problem:
            error = str(problem)
    return driver.end(execution, error), error or ""


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a polite kill sets: the run takes a checkpoint and stops. A second one ends it."""
    event = threading.Event()

    def handle(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
