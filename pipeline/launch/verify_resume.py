"""Check that a run that is killed again and again ends in the same files as one that is not.

Each attempt at the run is a process of its own that is ended by SIGKILL at a random moment: in the middle of a step,
of an evaluation, or of the writing of a checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.runs.execution import Execution
from pipeline.runs.records import DETERMINISTIC, WEIGHTS
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError

CHECKPOINT_EVERY = 3  # iterations
SPARED = 5  # iterations at the end in which no kill is planned: it could come too late
COMPARED = (*DETERMINISTIC, WEIGHTS)


def shortened(spec: RunSpec, iterations: int) -> RunSpec:
    """Return the run with another number of iterations, its learning rate dropped at the same fractions of them."""
    protocol = spec.protocol
    milestones = tuple(milestone * iterations // protocol.iterations for milestone in protocol.milestones)
    return replace(spec, protocol=replace(protocol, iterations=iterations, milestones=milestones))


def verify(spec: RunSpec, execution: Execution, kills: int, seed: int, say: Callable[[str], None] = print) -> None:
    """Train straight and with kills below ``execution.folder``, and compare every file that numbers depend on.

    Args:
        spec: the run.
        execution: how it is executed.
        kills: the number of kills, each at a moment drawn from `seed`.
        seed: of the moments.
        say: is given a line about each attempt.

    Raises:
        UserError: if the run is too short for so many kills.
        ResumeError: if a file differs, or an attempt ended otherwise than planned; both folders then stay.
    """
    iterations = spec.protocol.iterations
    if kills > iterations - SPARED:
        raise UserError(f"--kills {kills}: a run of {iterations} iterations takes at most {iterations - SPARED}")
    draw = random.Random(seed)
    straight, killed = (
        replace(execution, folder=execution.folder / name, checkpoint_iterations=CHECKPOINT_EVERY)
        for name in ("straight", "killed")
    )
    for folder in (straight.folder, killed.folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    started = time.monotonic()
    _attempt(spec, straight, None, 0.0)
    step = (time.monotonic() - started) / iterations
    say(f"straight: {iterations} iterations")
    kill_moments = [*sorted(draw.sample(range(1, iterations - SPARED + 1), kills)), None]
    for attempt, planned in enumerate(kill_moments, start=1):
        began_at = _newest(killed.folder)
        kill_after = planned and max(planned, began_at + 1)  # the attempt before may have come further
        _attempt(spec, killed, kill_after, draw.uniform(0, 2 * step))
        ended = "trained to the end" if kill_after is None else f"killed soon after iteration {kill_after}"
        say(f"attempt {attempt}: began at iteration {began_at}, {ended}")
    found = list(differences(straight.folder, killed.folder))
    if found:
        raise ResumeError("; ".join(found))


class ResumeError(RuntimeError):
    """A killed run did not end as an undisturbed one."""


def _attempt(spec: RunSpec, execution: Execution, kill_after: int | None, delay: float) -> None:
    """Train in a process that is killed `delay` seconds after an iteration, or goes on to the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.training.loop"])  # torch is imported once, not by every attempt
    process = context.Process(target=_train, args=(spec, execution, kill_after, delay))
    process.start()
    process.join()
    wanted = 0 if kill_after is None else -signal.SIGKILL
    if process.exitcode != wanted:
        raise ResumeError(f"{execution.folder}: its process ended with {process.exitcode}, not {wanted}")


def _train(spec: RunSpec, execution: Execution, kill_after: int | None, delay: float) -> None:
    import torch

    from pipeline.training.loop import train
    from pipeline.training.session import LocalSession

    iteration, killer = _newest(execution.folder), threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))

    def count() -> bool:
        nonlocal iteration
        iteration += 1
        if kill_after is not None and iteration >= kill_after and not killer.is_alive():
            killer.start()
        return False

    train(spec, execution, LocalSession("cuda" if torch.cuda.is_available() else "cpu"), should_stop=count)


def _newest(folder: Path) -> int:
    """Return the iteration of a run's newest checkpoint."""
    from pipeline.training.state import checkpoints

    return max((int(path.name) for path in checkpoints(folder)), default=0)


def differences(straight: Path, killed: Path) -> Iterator[str]:
    """Yield what differs between two finished runs, a phrase for each file."""
    for name in COMPARED:
        one, other = ((folder / name).read_bytes() for folder in (straight, killed))
        if one == other:
            continue
        yield f"{killed / name} differs from {straight / name} {_where(straight / name, killed / name)}"


def _where(one: Path, other: Path) -> str:
    if one.name == WEIGHTS:
        from safetensors.torch import load_file

        a, b = load_file(one), load_file(other)
        return f"in {[name for name in a if name not in b or not a[name].equal(b[name])][:3]}"
    pairs = zip(one.read_bytes().split(b"\n"), other.read_bytes().split(b"\n"), strict=False)
    return f"from line {next((number for number, (a, b) in enumerate(pairs, start=1) if a != b), 'the last')}"
