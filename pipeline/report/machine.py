"""What differs from machine to machine: seconds, hardware, commits, MLflow runs. It stays out of the tracked report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pipeline.report.evidence import Evidence
from pipeline.report.records import Run
from pipeline.runs.segments import hardware, marks_here, versions

MLFLOW_URL = "http://127.0.0.1:5000"
"""Where `make ui` serves MLflow."""


def machine_page(evidence: Evidence) -> dict[str, Any]:
    """Context of the local page's own part: one entry for each run with its provenance, and totals."""
    runs = [_entry(evidence.runs[name]) for name in evidence.plan.runs if name in evidence.runs]
    known = [entry for entry in runs if entry["seconds"] is not None]
    return {
        "runs": runs,
        "seconds": sum(entry["seconds"] for entry in known),
        "devices": sorted({device for entry in known for device in entry["devices"]}),
        "commits": sorted({commit for entry in known for commit in entry["commits"]}),
        "unknown": len(runs) - len(known),
        "elsewhere": evidence.elsewhere,
    }


def _entry(run: Run) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": run.name, "identity": run.identity, "folder": str(run.folder), "seconds": None}
    if run.provenance is None:
        return entry
    segments = run.provenance["segments"]
    seconds = sum(float(segment.get("seconds") or 0) for segment in segments)
    trained = run.iterations * run.config["protocol"]["batch_size"]
    return entry | {
        "seconds": seconds,
        "images_per_second": trained / seconds if seconds else 0.0,
        "segments": len(segments),
        "devices": _distinct(hardware(segment) for segment in segments),
        "versions": _distinct(versions(segment) for segment in segments),
        "commits": _distinct(_commit(segment) for segment in segments),
        "marks": marks_here(run.provenance),
        "mlflow": mlflow_address(run.provenance),
    }


def mlflow_address(provenance: Mapping[str, Any]) -> str | None:
    """Address of the run's page in MLflow's user interface, None for a run that was not tracked.

    The interface is that of the server in MLFLOW_TRACKING_URI, else the one that `make ui` serves.
    """
    run_id = provenance.get("mlflow_run_id")
    if not run_id:
        return None
    server = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    # Whatever stands before the @ is a password.
    address = f"{server.scheme}://{server.netloc.rpartition('@')[2]}{server.path.rstrip('/')}"
    return f"{address if server.scheme in ('http', 'https') else MLFLOW_URL}/#/runs/{run_id}"


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _commit(segment: Mapping[str, Any]) -> str:
    commit = str(segment.get("commit") or "unknown")[:10]
    return f"{commit} with local changes" if segment.get("dirty") else commit
