"""The folder of a run on each machine that trains it, and the samples of the machine's load during the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from pipeline.runs.execution import Execution
from pipeline.training.environment import hostname


@contextmanager
def worker_folder(execution: Execution, *, first_here: bool) -> Iterator[Execution]:
    """Give a worker its execution of a run: in the run's folder, or in a copy of it if the store is behind a URL.

    Args:
        execution: the execution as the driver has planned it.
        first_here: whether this is the run's first worker on this machine, which samples the machine for all of them.

    Raises:
        OSError: if the store does not answer at the start or at the end.
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
