"""The MLflow UI, on the loopback interface unless asked otherwise."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.tracking.database import sqlite_path
from pipeline.tracking.describe import view_of
from pipeline.tracking.parents import experiments
from pipeline.tracking.store import artifact_root, initialise, redacted, tracking_uri
from pipeline.utils.errors import UserError

LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
KILL_SECONDS = 10


def serve(root: Path, host: str, port: int) -> int:
    """Serve the tracking store of a project until Ctrl-C or a signal; return the exit status.

    The server ends with this process, and this process with the `make` that started it, whatever kills them.

    Raises:
        UserError: if the port is not free.
    """
    if "MAKELEVEL" in os.environ:
        end_with_parent()
    uri = tracking_uri(root)
    artifacts = artifact_root(uri)
    if artifacts is None:
        print(f"MLFLOW_TRACKING_URI is a server of its own: open {redacted(uri)}")
        return 0
    _check_port(host, port)
    if sqlite_path(uri) and not initialise(uri):
        return 1
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"MLflow UI of {redacted(uri)}: {address} (Ctrl-C ends it)")
    for profile, experiment in (experiments(uri) or {}).items():
        print(f"  {profile}: {address}/#{view_of(experiment)}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", artifacts, "--host", host, "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a process that this UI has no use for
    }
    signal.signal(signal.SIGTERM, _interrupt)
    server = subprocess.Popen(
        command,
        env=environment,
        preexec_fn=end_with_parent,  # noqa: PLW1509 (one system call: it takes no lock that a thread may hold)
        start_new_session=True,
    )
    try:
        return server.wait()
    except KeyboardInterrupt as stop:
        server.terminate()  # it passes that on to its own processes
        with suppress(subprocess.TimeoutExpired):
            server.wait(KILL_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        return 128 + signal.SIGTERM if stop.args else 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def end_with_parent() -> None:
    """Let this process be sent SIGTERM when its parent ends, where the system is Linux."""
    if sys.platform == "linux":
        LIBC.prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _check_port(host: str, port: int) -> None:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise UserError(f"--port {port} of {host}: {reason}; another one: make ui PORT={port + 1}") from None
