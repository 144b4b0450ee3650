"""Work in a process of its own, which may run out of memory or time without taking anything with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class DiedError(Exception):
    """A process ended before its work did: `status` is its exit status, or minus the signal that killed it."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        super().__init__(f"killed (signal {-status})" if status and status < 0 else f"died (exit status {status})")


def run_apart(
    function: Callable[[Argument], Iterable[Result]],
    argument: Argument,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Result]:
    """What iterating over ``function(argument)`` gives, item by item, from a new process.

    Function, argument and items must be picklable. An exception of the function is raised here. The process starts with
    this one's environment and, besides, `environment`.

    Raises:
        TimeoutError: when the process has not finished after `seconds`, its start included; it is killed.
        DiedError: when the process ended in the middle, as it does where the system runs out of memory.
    """
    yield from _start(function, argument, seconds, environment).items()


def run_side_by_side(
    function: Callable[[Argument], Iterable[Result]],
    arguments: Sequence[Argument],
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> list[list[Result]]:
    """What iterating over the function gives for each argument, from as many processes at once.

    The same as `run_apart` otherwise. When one of them fails, the others are killed.
    """
    started: list[_Apart[Result]] = []
    found: list[list[Result]] = [[] for _ in arguments]
    try:
        for argument in arguments:
            started.append(_start(function, argument, seconds, environment))
        going = [(apart.receiver, apart.items(), kept) for apart, kept in zip(started, found, strict=True)]
        while going:
            ready = wait([receiver for receiver, _, _ in going], started[0].left)
            for one in list(going):
                receiver, items, kept = one
                if receiver in ready or not ready:  # the time is over: it says so itself
                    try:
                        kept.append(next(items))
                    except StopIteration:
                        going.remove(one)
    finally:
        for apart in started:
            apart.end()
    return found


@dataclass(frozen=True)
class _Apart(Generic[Result]):
    """A process at work, and the end of the pipe that its items come from."""

    process: BaseProcess
    receiver: Connection
    seconds: float
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until it is given up."""
        return max(0.0, self.deadline - time.monotonic())

    def items(self) -> Iterator[Result]:
        """The items, until the process has ended."""
        try:
            while (left := self.left) > 0 and self.receiver.poll(left):
                kind, value = self.receiver.recv()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
            raise TimeoutError(f"not done after {self.seconds:g} s")
        except EOFError:
            self.process.join()
            raise DiedError(self.process.exitcode) from None
        finally:
            self.end()

    def end(self) -> None:
        """Kill the process, if it still runs."""
        self.process.kill()
        self.process.join()
        self.receiver.close()


def _start(
    function: Callable[[Argument], Iterable[Result]],
    argument: Argument,
    seconds: float,
    environment: Mapping[str, str] | None,
) -> _Apart[Result]:
    deadline = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(function, argument, sender))
    with _with_environment(environment or {}):
        process.start()
    sender.close()  # the process then holds the only end, and the pipe ends with it
    return _Apart(process, receiver, seconds, deadline)


@contextmanager
def _with_environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _send_all(function: Callable[[Any], Iterable[Any]], argument: Any, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to answer; it ends this process
    try:
        for item in function(argument):
            sender.send(("item", item))
    except Exception as error:
        sender.send(("error", error))
    else:
        sender.send(("end", None))
