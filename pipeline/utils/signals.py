"""Signals that end a command (Ctrl-C, SIGTERM, SIGHUP), as an exception or as a question; and the death of a parent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATING = (signal.SIGTERM, signal.SIGHUP)
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish"})
LOOK_SECONDS = 1.0  # between two looks for the parent


class Interrupted(KeyboardInterrupt):
    """A signal that asks this process to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption(threading.Event):
    """Set by a signal that asks this process to end; `number` is that of the signal."""

    number: int = signal.SIGINT


def _raise(number: int, frame: object) -> None:
    raise Interrupted(number)


def raise_on_termination() -> None:
    """Have SIGTERM and SIGHUP raise `Interrupted`, as Ctrl-C raises KeyboardInterrupt, unless they are ignored."""
    for number in TERMINATING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _raise)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Yield an event that Ctrl-C, SIGTERM or SIGHUP sets, in the main thread; Ctrl-C after that raises `Interrupted`.

    Only Ctrl-C, because the others come in twos: when a process group is terminated, the parent is gone besides.
    """
    event = Interruption()

    def handle(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise Interrupted(number)
        event.number = event.number if event.is_set() else number
        event.set()

    ignored = [number for number in TERMINATING if signal.getsignal(number) == signal.SIG_IGN]  # by nohup
    caught = [number for number in (signal.SIGINT, *TERMINATING) if number not in ignored]
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_with_parent() -> None:
    """Send SIGTERM to this process when the one that started it ends, watched by a thread.

    For stages of DVC, which starts them through a shell: if that shell still runs, its parent is watched, too.
    """
    parent = os.getppid()
    threading.Thread(target=_watch_parent, args=(parent,), name="parent", daemon=True).start()


def _watch_parent(parent: int) -> None:
    import psutil

    try:
        shell = psutil.Process(parent)
        starter = shell.ppid() if shell.name() in SHELLS else None
        while os.getppid() == parent and (starter is None or shell.ppid() == starter):
            time.sleep(LOOK_SECONDS)
    except psutil.NoSuchProcess:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
