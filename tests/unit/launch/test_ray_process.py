"""The process that is connected to Ray: what happens to the command when it dies, and to it when the command dies.

Ray itself is left out here; `tests/integration/test_killed_ray.py` has it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.launch import ray_process
from pipeline.launch.ray_process import RayLostError, RayProcess, Supervisor, end_processes
from pipeline.utils.errors import UserError

WITHOUT_RAY = """
import sys
from contextlib import nullcontext
from pipeline.launch import cluster, ray_process
cluster.connected, cluster.quiet = lambda root, lost: nullcontext(), lambda: None
ray_process.serve(*sys.argv[1:])
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_process, "SERVE", WITHOUT_RAY)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


COMMAND = """
import time
from pipeline.launch import ray_process
from tests.unit.launch.test_ray_process import ROOT, WITHOUT_RAY, start_a_program
ray_process.SERVE = WITHOUT_RAY
process = ray_process.RayProcess(ROOT)
print(process.pid, process.call(start_a_program), flush=True)
process.call(time.sleep, 600)
"""


def start_a_program() -> int:
    """Leave a program behind, as Ray's raylet leaves its workers."""
    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid


def refuse() -> None:
    raise UserError("store = 7: must be a folder")


def ends(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_functions_are_called_in_another_process_and_their_exceptions_are_raised_here() -> None:
    with RayProcess(ROOT) as process:
        assert process.call(os.getpid) == process.pid != os.getpid()
        with pytest.raises(UserError, match="store = 7: must be a folder"):
            process.call(refuse)
        with pytest.raises(RuntimeError, match="by zero"):
            process.call(divmod, 1, 0)


def test_when_the_process_dies_every_call_says_so_and_nothing_is_left_running() -> None:
    process = RayProcess(ROOT)
    left = process.call(start_a_program)
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
    with pytest.raises(RayLostError, match="the process that runs Ray was killed by SIGKILL"):
        process.call(time.sleep, 60)
    assert ends(left, 1)
    with pytest.raises(RayLostError):
        process.call(os.getpid)


def test_closing_ends_all_that_was_started() -> None:
    with RayProcess(ROOT) as process:
        left = process.call(start_a_program)
    assert ends(left, 1) and ends(process.pid, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_command_dies_nothing_is_left_running(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", COMMAND], cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        pids = [int(word) for word in started.stdout.readline().split()]
        started.send_signal(number)
        started.wait(10)
    assert len(pids) == 2
    assert all(ends(pid) for pid in pids)


def test_processes_of_others_are_left_alone() -> None:
    with subprocess.Popen(["sleep", "600"], env=os.environ | {ray_process.MARKER: "another"}) as other:
        end_processes("ours")
        assert other.poll() is None
        end_processes("another")
        assert other.poll() is not None


def kill_once(path: Path) -> str:
    """Kill the own process, but the first time only."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_ray_starts_again_and_the_call_is_repeated(tmp_path: Path) -> None:
    notes: list[str] = []
    with Supervisor(ROOT, 2, notes.append) as ray:
        assert ray.call(kill_once, tmp_path / "killed") == "done"
    assert notes == [
        "the process that runs Ray was killed by SIGKILL: Ray starts again (1 of 2), runs continue from checkpoints"
    ]


def test_one_death_that_several_calls_notice_counts_once(tmp_path: Path) -> None:
    notes: list[str] = []
    results: list[str] = []

    def call(function: Callable[..., str], *arguments: object) -> None:
        results.append(ray.call(function, *arguments))

    with Supervisor(ROOT, 1, notes.append) as ray:
        threads = [threading.Thread(target=call, args=(wait_for_the_kill, tmp_path / "killed")) for _ in range(4)]
        threads.append(threading.Thread(target=call, args=(kill_once, tmp_path / "killed")))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(results) == 5 and len(notes) == 1


def wait_for_the_kill(path: Path) -> str:
    """Return at once after the kill, never before."""
    if not path.exists():
        time.sleep(600)
    return "done"


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_ray_that_dies_more_often_than_is_allowed_ends_the_launch_with_what_to_type() -> None:
    notes: list[str] = []
    with Supervisor(ROOT, 1, notes.append) as ray, pytest.raises(RayLostError) as lost:
        ray.call(kill)
    assert len(notes) == 1
    assert str(lost.value) == (
        "the process that runs Ray was killed by SIGKILL; resources.max_failures = 1 allows no more of that;"
        " the same command continues"
    )


def test_ray_does_not_start_again_while_the_launch_stops() -> None:
    notes: list[str] = []
    with Supervisor(ROOT, 9, notes.append, stopping=lambda: True) as ray, pytest.raises(RayLostError):
        ray.call(kill)
    assert not notes
