"""What the first worker writes while a run goes on: history, timing, provenance, progress and checkpoints."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from pipeline.runs.execution import Execution
from pipeline.runs.reading import CHECKSUMS, write_checksums
from pipeline.runs.records import (
    CHECKPOINTS,
    CONFIG,
    DETERMINISTIC,
    HISTORY,
    MACHINE,
    METRICS,
    PROGRESS,
    TIMING,
    WEIGHTS,
    Evaluation,
    Metrics,
    Position,
    Progress,
    Provenance,
    Segment,
    Status,
    Timing,
    write_rows,
)
from pipeline.runs.spec import RunSpec
from pipeline.training import environment, state
from pipeline.training.optimiser import SGD
from pipeline.training.session import Session
from pipeline.utils.files import json_bytes, write_json

PROGRESS_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Reporter:
    """Keeps the run folder up to date; does nothing on the other workers."""

    def __init__(
        self,
        spec: RunSpec,
        execution: Execution,
        session: Session,
        position: Position,
        on_evaluation: Callable[[Evaluation, Timing], None] | None,
    ) -> None:
        self.spec, self.execution, self.session, self.position = spec, execution, session, position
        self.on_evaluation = on_evaluation
        self.active = session.rank == 0
        self._clock = time.monotonic()
        self._begun, self._first, self._earlier = self._clock, position.iteration, position.seconds
        self._saved = (self._clock, position.iteration)
        self._rated = (self._clock, position.iteration)  # where the speed is measured from
        self._shown = 0.0
        self._saver = state.Saver(execution.folder, execution.checkpoints.keep)
        if self.active:
            self._open()

    def _open(self) -> None:
        """Bring the files to the position that training continues from."""
        folder, execution = self.execution.folder, self.execution
        state.remove_unfinished(folder)
        state.set_aside(folder, self._first)
        (folder / CHECKSUMS).unlink(missing_ok=True)  # of a process that was killed before it wrote the metrics
        write_json(folder / CONFIG, self.spec.to_json())
        self._write_rows()
        earlier = Provenance.read(folder)
        segments = tuple(s for s in earlier.segments if s.from_iteration < self._first) if earlier else ()
        self._segment = Segment(
            from_iteration=self._first,
            to_iteration=self._first,
            started=environment.now(),
            seconds=0.0,
            images_per_second=0.0,
            hostname=environment.hostname(),
            device=environment.device_name(self.session.device),
            threads=execution.threads,
            workers=self.session.world_size,
            versions=environment.versions(self.spec),
            commit=execution.commit,
            dirty=execution.dirty,
            command=execution.command,
            gpus=execution.gpus,
        )
        self._earlier_segments = segments
        self._write_provenance("running")

    def seconds(self) -> float:
        """Seconds of training so far, in all segments."""
        return self._earlier + time.monotonic() - self._begun

    def timing(self) -> Timing:
        """The row of the timing that belongs to the last row of the history; the next speed counts from here."""
        now, row = time.monotonic(), self.position.history[-1]
        speed, self._rated = self._speed(now), (now, self.position.iteration)
        return Timing(row.epoch, row.iteration, round(self.position.seconds, 3), round(speed, 1))

    def evaluated(self) -> None:
        """Write history and timing after an evaluation, and report it to the listener."""
        row = self.position.history[-1]
        if self.active:
            self._write_rows()
            if self.on_evaluation is not None:
                self.on_evaluation(row, self.position.timing[-1])

    def metrics(self) -> dict[str, float]:
        """The last evaluation, for the session."""
        row = self.position.history[-1]
        return {
            "epoch": row.epoch,
            "iteration": row.iteration,
            "test_error": row.test_error,
            "test_loss": row.test_loss,
        }

    def progress(self) -> None:
        """Every two seconds, say how far the run is."""
        now = time.monotonic()
        if not self.active or now - self._shown < PROGRESS_SECONDS:
            return
        self._shown = now
        history, iterations = self.position.history, self.spec.protocol.iterations
        speed = (self.position.iteration - self._first) / max(now - self._begun, 1e-9)
        Progress(
            iteration=self.position.iteration,
            iterations=iterations,
            epoch=round(self.position.iteration * self.spec.protocol.batch_size / self.spec.data.train_images, 2),
            test_error=history[-1].test_error if history else None,
            train_loss=history[-1].train_loss if history else None,
            images_per_second=round(speed * self.spec.protocol.batch_size, 1),
            seconds_left=round((iterations - self.position.iteration) / speed, 1),
        ).write(self.execution.folder)

    def checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        seconds, iteration = time.monotonic() - self._saved[0], self.position.iteration - self._saved[1]
        every = self.execution.checkpoint_iterations
        return seconds >= self.execution.checkpoints.seconds or (every is not None and iteration >= every)

    def save(self, model: nn.Module, optimiser: SGD) -> None:
        """Take a checkpoint; it is written while training goes on."""
        if self.active:
            self._saver.save(state.Snapshot.take(self.spec.identity, model, optimiser, self.position))
            self._write_provenance("running")
        self._saved = (time.monotonic(), self.position.iteration)

    def paused(self) -> None:
        """The last word of this segment, once its checkpoint is written."""
        if self.active:
            self._saver.wait()
            self._write_provenance("paused")
            (self.execution.folder / PROGRESS).unlink(missing_ok=True)

    def finished(self, metrics: Metrics) -> None:
        """Write what a finished run has: provenance, checksums, and last the metrics, which make it a finished one."""
        folder = self.execution.folder
        try:
            self._saver.wait()
        except OSError as error:  # nobody needs that checkpoint any more
            logger.warning("%s: its last checkpoint was not written: %s", self.spec.name, error)
        self._write_provenance("finished")
        files = (*DETERMINISTIC, *MACHINE, WEIGHTS)
        write_checksums(folder, files, {METRICS: json_bytes(metrics.to_json())})
        metrics.write(folder)
        (folder / PROGRESS).unlink(missing_ok=True)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

    def _speed(self, now: float) -> float:
        """Training images a second since the last evaluation."""
        since, iteration = self._rated
        return (self.position.iteration - iteration) * self.spec.protocol.batch_size / max(now - since, 1e-9)

    def _write_rows(self) -> None:
        write_rows(self.execution.folder / HISTORY, Evaluation, self.position.history)
        write_rows(self.execution.folder / TIMING, Timing, self.position.timing)

    def _write_provenance(self, status: Status) -> None:
        seconds = time.monotonic() - self._begun
        done = self.position.iteration - self._first
        segment = replace(
            self._segment,
            to_iteration=self.position.iteration,
            seconds=round(seconds, 3),
            images_per_second=round(done * self.spec.protocol.batch_size / max(seconds, 1e-9), 1),
        )
        segments = (*self._earlier_segments, segment)
        Provenance(status, self.execution.profile, segments, self.execution.mlflow_run_id).write(self.execution.folder)
