"""Functions that are called again and again beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(function: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Call a function every few seconds in a thread of that name, as long as the block runs."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(seconds):
            function()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
