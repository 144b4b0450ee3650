"""`make ui` and its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
UI = [sys.executable, "-m", "pipeline", "ui", "--port"]
MAKE = ["make", "--no-print-directory", "-o", ".venv/.ready", "ui"]


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except (OSError, urllib.error.URLError):
        return False
    return True


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        (UI, signal.SIGINT, 0),
        (UI, signal.SIGTERM, 143),
        (UI, signal.SIGKILL, -signal.SIGKILL),
        (MAKE, signal.SIGTERM, -signal.SIGTERM),
        (MAKE, signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["ui-INT", "ui-TERM", "ui-KILL", "make-TERM", "make-KILL"],
)
def test_killing_the_ui_ends_its_server(
    command: list[str], number: signal.Signals, status: int, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    last = f"PORT={port}" if command is MAKE else str(port)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, last], cwd=PROJECT, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while not answers(port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) == status
        _, left = psutil.wait_procs(children, 60)
        assert not left
        assert not answers(port)
    finally:
        for child in [*psutil.Process().children(recursive=True)]:
            child.kill()
    lines = (tmp_path / "log").read_text()
    assert f"http://127.0.0.1:{port} (Ctrl-C ends it)" in lines
    assert "Traceback" not in lines
