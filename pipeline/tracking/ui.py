"""The MLflow UI, on the loopback interface unless asked otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline import tracking
from pipeline.tracking.store import artifact_root, sqlite_path


def serve(root: Path, host: str, port: int) -> int:
    """Serve the tracking store of a project until Ctrl-C; the exit status of the server."""
    uri = tracking.tracking_uri(root)
    artifacts = artifact_root(uri)
    if artifacts is None:
        print(f"MLFLOW_TRACKING_URI is a server of its own: open {uri}")
        return 0
    if sqlite_path(uri) and not tracking.initialise(uri):
        return 1
    print(f"MLflow UI of {uri}: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", artifacts, "--host", host, "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a process that this UI has no use for
    }
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
