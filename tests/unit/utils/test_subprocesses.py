"""Work in a process of its own: what it gives, and how it ends."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.utils.subprocesses import DiedError, run_apart, run_side_by_side


def test_it_gives_what_the_function_gives() -> None:
    assert list(run_apart(iter, ["a", "b"], 60)) == ["a", "b"]


def test_what_came_before_the_time_ran_out_is_kept_and_the_process_is_ended() -> None:
    items = run_apart(itertools.count, 5, 2)
    assert next(items) == 5
    with pytest.raises(TimeoutError, match="not done after 2 s"):
        list(items)
    assert multiprocessing.active_children() == []


def test_the_death_of_the_process_is_told_by_its_signal() -> None:
    with pytest.raises(DiedError, match=rf"killed \(signal {int(signal.SIGKILL)}\)"):
        list(run_apart(partial(map, signal.raise_signal), [signal.SIGKILL], 60))


def test_an_exception_is_raised_here() -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(run_apart(partial(map, math.sqrt), [4.0, -1.0], 60))


def test_no_process_is_left_when_nobody_wants_the_rest() -> None:
    items = run_apart(itertools.count, 0, 60)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_processes_work_side_by_side(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    assert run_side_by_side(meet, [(files[0], files[1]), (files[1], files[0])], 60) == [["met"], ["met"]]


@pytest.mark.parametrize("order", [1, -1])
def test_when_one_of_several_fails_none_is_left(tmp_path: Path, order: int) -> None:
    with pytest.raises(FileNotFoundError):
        run_side_by_side(meet, [("/nowhere/a", ""), (str(tmp_path / "b"), "/nowhere/a")][::order], 60)
    assert multiprocessing.active_children() == []


def meet(files: tuple[str, str]) -> Iterator[str]:
    """Wait for the file of the other process, however long it takes, after writing one's own."""
    own, other = map(Path, files)
    own.touch()
    while not other.exists():
        time.sleep(0.05)
    yield "met"
