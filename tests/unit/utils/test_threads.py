"""A function that is called again and again beside other work."""

from __future__ import annotations

import threading
import time

from pipeline.utils.threads import repeated


def test_it_is_called_until_the_block_ends_and_never_after() -> None:
    calls, thrice = [], threading.Event()

    def call() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) >= 3:
            thrice.set()

    with repeated(call, 0.001, "beside"):
        assert thrice.wait(30)
    ended = len(calls)
    assert set(calls) == {"beside"}
    assert not any(thread.name == "beside" for thread in threading.enumerate())
    time.sleep(0.05)
    assert len(calls) == ended, "it goes on"
