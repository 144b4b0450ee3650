"""A progress bar on a terminal's standard error; elsewhere nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.utils.terminal import raw_stderr

BYTES = "bytes"


@contextmanager
def progress_bar(title: str, total: int | None, *, done: int = 0, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar; with `unit=BYTES` sizes and the transfer rate are shown."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(file=raw_stderr())
    amounts = (DownloadColumn(), TransferSpeedColumn()) if unit == BYTES else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda amount: progress.advance(task, amount)
