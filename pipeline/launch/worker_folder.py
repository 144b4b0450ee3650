"""What surrounds a run on each machine that trains it: its folder, and a record of what the machine does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from pipeline.runs.execution import Execution
from pipeline.training.environment import hostname


@contextmanager
def workplace(execution: Execution, *, first_here: bool) -> Iterator[Execution]:
    """How a worker executes a run: in the run's folder, or in a copy of it where the store is behind a URL.

    Args:
        first_here: whether it is the first worker of the run on this machine, which samples the machine for all.

    Raises:
        OSError: if the store does not answer at the start, or at the end.
    """
    with ExitStack() as stack:
        if execution.store is not None:
            from pipeline.runs.run_store import working_copy

            copy = stack.enter_context(working_copy(execution.store, execution.folder.name))
            execution = replace(execution, folder=copy)
        if execution.system_metrics and first_here:
            from pipeline.tracking.system import SystemLog

            stack.enter_context(SystemLog(execution.folder, hostname()))
        yield execution
