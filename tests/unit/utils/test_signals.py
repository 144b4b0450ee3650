"""Signals from the first line of a command on, and the death of its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.utils.signals import Interrupted, interruptible

ROOT = Path(__file__).parents[3]
EARLY = """
import os, signal, sys
from pipeline import cli
class Stopped:
    def find_spec(self, name, path=None, target=None):
        if name == "pipeline.cli.benchmarking":  # the first thing that a command imports
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Stopped())
sys.argv = ["pipeline", "launch"]
cli.run_and_exit()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_before_a_command_has_begun_is_one_line_and_its_own_status(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY.format(name=name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == "interrupted; the same command continues\n"
    assert done.returncode == 128 + signal.Signals[name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_an_event_and_a_later_ctrl_c_an_exception(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as raised, interruptible() as interrupted:
        os.kill(os.getpid(), number)
        assert interrupted.wait(5) and interrupted.number == number
        os.kill(os.getpid(), signal.SIGTERM)  # of a parent that was terminated, too
        time.sleep(0.1)
        assert interrupted.number == number
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert raised.value.number == signal.SIGINT


STAGE = """
import time
from pipeline.utils.signals import raise_on_termination, terminate_with_parent
raise_on_termination()
terminate_with_parent()
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt as signal:
    open({path!r}, "w").write(str(signal))
"""


@pytest.mark.parametrize("through", ["a shell", "nothing"])
def test_a_stage_is_terminated_when_the_process_that_started_it_is_killed(tmp_path: Path, through: str) -> None:
    script, told = tmp_path / "stage.py", tmp_path / "told"
    script.write_text(STAGE.format(path=str(told)))
    stage = [sys.executable, str(script)]
    inner = ["sh", "-c", f"{sys.executable} {script}; true"] if through == "a shell" else stage
    starter = f"import subprocess; subprocess.run({inner!r})"
    with subprocess.Popen(
        [sys.executable, "-c", starter], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as dvc:
        assert dvc.stdout is not None and dvc.stdout.readline() == "ready\n"
        time.sleep(1)  # until the thread looks
        dvc.kill()
    deadline = time.monotonic() + 10
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told.read_text() == "SIGTERM"
