"""The progress of runs: one live table on a terminal, or a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.runs.records import HISTORY, Evaluation, Progress, read_rows
from pipeline.runs.spec import RunSpec
from pipeline.utils.terminal import raw_stderr
from pipeline.utils.text import without_controls

LOG_SECONDS = 30.0  # between two lines on one run in a log
LEAST_PACE = 1e-3  # share of all work that must be done before the rest is estimated


@dataclass
class Line:
    """One row of the table, for one run.

    Attributes:
        first: the step at which the run was first seen; above 0 where it was resumed from a checkpoint.
    """

    name: str
    folder: Path
    begun: float
    state: str = "queued"
    step: int = 0
    steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    error: float | None = None
    speed: float | None = None
    left: float | None = None
    logged: float = 0.0
    seconds: float | None = None
    first: int | None = None

    @property
    def share(self) -> float:
        """The share of the run that is done, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0

    def update(self) -> None:
        """Read the progress that the run itself reports."""
        progress = Progress.read(self.folder)
        if progress is None:  # not written yet, or damaged: training does not stop for the sake of the table
            return
        if self.state == "queued":
            self.state, self.begun = "training", time.monotonic()
        self.step, self.steps, self.epoch = progress.iteration, progress.iterations, progress.epoch
        self.first = self.step if self.first is None else self.first
        self.loss, self.error = progress.train_loss, progress.test_error
        self.speed, self.left = progress.images_per_second, progress.seconds_left

    def describe(self, measure: str) -> str:
        """Describe the run in a line of a log: step, epoch, loss, error, images per second and time left."""
        measured = "" if self.loss is None else f" loss {self.loss:.4f}, {measure} {_percent(self.error)},"
        return (
            f"{self.name}: step {self.step}/{self.steps}, epoch {self.epoch:.1f},{measured}"
            f" {self.speed:.0f} images/s, {_duration(self.left)} left"
        )


class ProgressTable:
    """The progress of the runs of a launch, or of a search. Use as a context manager.

    Args:
        total: the number of runs.
        console: where to print; standard error by default.
        measure: the name of the error, where it is not that of the test images.
    """

    def __init__(self, total: int, console: Console | None = None, measure: str = "test error") -> None:
        self.console = console or Console(file=raw_stderr(), highlight=False)
        self.total, self.ended_runs, self.measure = total, 0, measure
        self.lines: dict[str, Line] = {}
        self.work: Mapping[str, float] = {}
        self.begun_at = time.monotonic()
        live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live = Live(console=self.console, get_renderable=self.table, auto_refresh=False) if live else None

    def __enter__(self) -> ProgressTable:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        """Print a line of its own."""
        with suppress(OSError):  # nobody reads it any more, e.g. `dvc` was killed; runs still take their checkpoints
            self.console.print(without_controls(text), soft_wrap=True, markup=False)

    def expect(self, work: Mapping[str, float]) -> None:
        """Set the amount of work of each run, in any unit; the remaining time is estimated from it."""
        self.work = work

    def begun(self, spec: RunSpec, folder: Path) -> None:
        """Add a run."""
        self.lines[spec.name] = Line(spec.name, folder, time.monotonic())

    def ended(self, spec: RunSpec, state: str, reason: str | None) -> None:
        """Mark a run as ended, and print how it ended."""
        line = self.lines[spec.name]
        self.ended_runs += 1
        line.state, line.seconds, line.left = state, time.monotonic() - line.begun, None
        history = read_rows(line.folder / HISTORY, Evaluation)
        if history:
            line.error, line.epoch = history[-1].test_error, history[-1].epoch
        error = "" if line.error is None else f", {self.measure} {line.error:.2f} %"
        why = f": {reason}" if reason else ""
        self.note(f"[{self.ended_runs}/{self.total}] {spec.name} {state}{error}, {line.seconds:.0f} s{why}")

    def refresh(self) -> None:
        """Read the progress of all runs, and show it."""
        now = time.monotonic()
        for line in self.lines.values():
            if line.seconds is not None:
                continue
            line.update()
            if not self.live and line.state == "training" and now - max(line.logged, line.begun) >= LOG_SECONDS:
                line.logged = now
                self.note(line.describe(self.measure))
        if self.live:
            with suppress(OSError):
                self.live.refresh()

    def table(self) -> Group:
        """Render the runs in training, and a summary of all runs below them."""
        table = Table(box=None, pad_edge=False)
        for title in ("run", "state", "step", "epoch", "loss", self.measure, "images/s", "left"):
            table.add_column(title, justify="left" if title in ("run", "state") else "right")
        for line in self.lines.values():
            if line.seconds is None:
                table.add_row(
                    line.name,
                    line.state,
                    f"{line.step}/{line.steps}" if line.steps else "",
                    f"{line.epoch:.1f}",
                    "" if line.loss is None else f"{line.loss:.4f}",
                    _percent(line.error),
                    "" if line.speed is None else f"{line.speed:.0f}",
                    _duration(line.left),
                )
        waiting, elapsed = self.total - len(self.lines), time.monotonic() - self.begun_at
        summary = f"{self.ended_runs} of {self.total} ended, {waiting} waiting, {_duration(elapsed)} so far"
        return Group(table, Text(summary + self._remaining(elapsed), style="dim italic"))

    def _remaining(self, elapsed: float) -> str:
        """Describe how much of all work is done, and how long the rest will take at the pace so far."""
        if not self.work:
            return ""
        lines = [(line, self.work[line.name]) for line in self.lines.values()]
        done = sum(work * (line.share if line.seconds is None else 1.0) for line, work in lines)
        before = sum(work * (line.first or 0) / line.steps for line, work in lines if line.steps)
        everything = sum(self.work.values())
        pace = (done - before) / everything
        left = f", {_duration(elapsed * (1 - done / everything) / pace)} left" if pace > LEAST_PACE else ""
        return f"; {100 * done / everything:.0f} % of the work done{left}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
