"""Training, from the start or from the last checkpoint, to the end."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from models import create_model
from pipeline.runs.execution import Execution
from pipeline.runs.records import Evaluation, Position, Sums, Timing
from pipeline.runs.spec import RunSpec, evaluation_iterations
from pipeline.training import environment, state
from pipeline.training.batch_norm import RunningStatistics, synchronise
from pipeline.training.evaluation import evaluate
from pipeline.training.finish import DivergedError, finish
from pipeline.training.groups import plan_groups
from pipeline.training.inputs import open_inputs
from pipeline.training.optimiser import SGD, learning_rate
from pipeline.training.reporter import Reporter
from pipeline.training.session import Session, agree
from pipeline.training.tally import Tally
from pipeline.utils.errors import UserError

# With several workers, how often (in iterations) they agree on whether to take a checkpoint or to stop.
AGREE_EVERY = 10
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
CONTINUE, SAVE, STOP, LISTEN = 0, 1, 2, 3
LISTEN_SECONDS = 2.0  # between two looks whether the session is about to lose a machine


def train(
    spec: RunSpec,
    execution: Execution,
    session: Session,
    *,
    on_evaluation: Callable[[Evaluation, Timing], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Train a run to its end, or until it is paused; continues from its last checkpoint if there is one.

    Args:
        on_evaluation: called on the first worker after every evaluation.
        should_stop: asked on every worker; one that says true pauses the run, with a checkpoint.

    Returns:
        "finished" or "paused".

    Raises:
        UserError: if the data or the batch do not fit the run, or the run's folder cannot take its files.
        DivergedError: if the loss stops being finite.
    """
    try:
        return _train(spec, execution, session, on_evaluation, should_stop)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise UserError(
            f"{error.filename or execution.folder}: {error.strerror}; once there is room again, the same command"
            " continues from the last checkpoint"
        ) from None


def _train(
    spec: RunSpec,
    execution: Execution,
    session: Session,
    on_evaluation: Callable[[Evaluation, Timing], None] | None,
    should_stop: Callable[[], bool],
) -> str:
    listened = time.monotonic()
    environment.make_deterministic(execution.threads)
    worker = Worker(spec, execution, session)
    position = worker.restore()
    reporter = Reporter(spec, execution, session, position, on_evaluation)
    evaluations = frozenset(evaluation_iterations(spec))

    def decide() -> int:
        if should_stop() or (execution.stop_at is not None and time.time() >= execution.stop_at):
            return STOP
        if reporter.checkpoint_due():
            return SAVE
        return LISTEN if time.monotonic() - listened >= LISTEN_SECONDS else CONTINUE

    while position.iteration < spec.protocol.iterations:
        worker.step(position.iteration)
        position.iteration += 1
        if position.iteration in evaluations:
            worker.evaluate(position)
            position.seconds = reporter.seconds()
            position.timing.append(reporter.timing())
            reporter.evaluated()
            session.report(reporter.metrics(), last=position.iteration == spec.protocol.iterations)
        reporter.progress()
        if session.world_size > 1 and position.iteration % AGREE_EVERY:
            continue
        decision = agree(session, decide())
        if decision == LISTEN:
            listened = time.monotonic()
            decision = SAVE if session.about_to_be_lost() else CONTINUE
        if decision == CONTINUE or position.iteration == spec.protocol.iterations:
            continue
        position.sums, position.seconds = worker.tally.read(session), reporter.seconds()
        reporter.save(worker.bare, worker.optimiser)
        if decision == STOP:
            reporter.paused()
            return "paused"
    if session.rank == 0:
        reporter.finished(finish(spec, execution.folder, worker.bare, worker.test, position, worker.autocast))
    return "finished"


class Worker:
    """One worker's network, optimiser and data."""

    def __init__(self, spec: RunSpec, execution: Execution, session: Session) -> None:
        self.spec, self.execution, self.session = spec, execution, session
        protocol, device = spec.protocol, session.device
        try:
            groups = plan_groups(protocol.batch_size, protocol.batch_norm_group, session.world_size)
        except ValueError as error:
            raise UserError(f"{spec.name}: {error}") from None
        self.micro_batch = groups.micro_batch
        self.stream, self.test = open_inputs(spec, execution, session)
        self.bare = make_network(spec).to(device)
        if groups.workers > 1:
            synchronise(self.bare, _group_of(session, groups.workers))
        self.running: RunningStatistics | None = None
        if session.world_size > 1 and protocol.batch_norm_group < protocol.batch_size:
            self.running = RunningStatistics(self.bare, groups, protocol.batch_size, session)
        self.optimiser = SGD(self.bare, protocol)
        self.model: nn.Module = environment.compiled(self.bare) if spec.compile else self.bare
        if session.world_size > 1:
            self.model = DistributedDataParallel(self.model, broadcast_buffers=False)
        self.autocast = environment.autocast(spec, device)
        self.tally = Tally(device)  # of training losses and errors since the last evaluation

    def restore(self) -> Position:
        """Continue from the newest good checkpoint; every worker reads the same one."""
        checkpoint = state.read_latest(self.execution.folder, self.spec.identity)
        self.bare.train()
        if checkpoint is None:
            return Position()
        state.restore(checkpoint, self.bare, self.optimiser)
        self.tally.set(checkpoint.position.sums, self.session)
        return checkpoint.position

    def step(self, iteration: int) -> None:
        """One step of the optimiser on this worker's share of a batch."""
        self.optimiser.zero_grad()
        if self.running:
            self.running.begin()
        images, labels = self.stream.batch(iteration)
        chunks = len(labels) // self.micro_batch
        for index, (x, y) in enumerate(
            zip(images.split(self.micro_batch), labels.split(self.micro_batch), strict=True)
        ):
            if isinstance(self.model, DistributedDataParallel):
                self.model.require_backward_grad_sync = index == chunks - 1
            with self.autocast():
                logits = self.model(x).float()
            losses = F.cross_entropy(logits, y, reduction="none")
            (losses.mean() / chunks).backward()
            self.tally.add(logits, y, losses)
        self.optimiser.step(learning_rate(self.spec.protocol, iteration))
        if self.running:
            self.running.combine()

    def evaluate(self, position: Position) -> None:
        """Evaluate, append to the history, and start new sums."""
        train = self.tally.read(self.session)
        if self.session.world_size > 1:  # all test the same network, to the last bit
            for buffer in self.bare.buffers():
                dist.broadcast(buffer, src=0)
        test = evaluate(self.bare, self.test, self.session, self.autocast)
        if train.not_finite or test.not_finite:
            raise DivergedError(f"{self.spec.name}: the loss is not finite at iteration {position.iteration}")
        self.tally.set(Sums(), self.session)
        row = Evaluation(
            epoch=round(position.iteration * self.spec.protocol.batch_size / len(self.stream), 4),
            iteration=position.iteration,
            learning_rate=learning_rate(self.spec.protocol, position.iteration - 1),
            train_loss=train.mean_loss,
            train_error=train.error,
            test_loss=test.mean_loss,
            test_error=test.error,
            top5_error=test.top5_error if self.test.has_top5 else None,
        )
        position.history.append(row)


def make_network(spec: RunSpec) -> nn.Module:
    """The run's network with its initial weights, in the run's memory format."""
    network = spec.network
    model = create_model(network.name, network.num_classes, seed=spec.seed, **network.options)
    return model.to(memory_format=torch.channels_last) if spec.channels_last else model


def _group_of(session: Session, workers: int) -> Any:
    """The process group of the workers that share this worker's batch-norm statistics."""
    ranks = [range(first, first + workers) for first in range(0, session.world_size, workers)]
    groups = [dist.new_group(list(members)) for members in ranks]
    return groups[session.rank // workers]
