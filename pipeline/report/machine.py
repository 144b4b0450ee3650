"""What differs from machine to machine: seconds, hardware, commits, MLflow runs. It stays out of the tracked report."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.report.evidence import Evidence
from pipeline.report.present import MOVED
from pipeline.report.records import Run
from pipeline.runs.records import Provenance, Segment

MLFLOW_URL = "http://127.0.0.1:5000"
"""Where `make ui` serves MLflow."""
DIRTY = "made from a working tree with changes"
ROOT = Path(__file__).resolve().parents[2]
TRAINING_CODE = ("pipeline/training", "models")


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
    segments, seconds = run.provenance.segments, run.provenance.seconds
    trained = run.iterations * run.config["protocol"]["batch_size"]
    return entry | {
        "seconds": seconds,
        "images_per_second": trained / seconds if seconds else 0.0,
        "segments": len(segments),
        "devices": _distinct(segment.hardware for segment in segments),
        "versions": _distinct(segment.libraries for segment in segments),
        "commits": _distinct(_commit(segment) for segment in segments),
        "marks": marks_here(run.provenance),
        "mlflow": mlflow_address(run.provenance),
    }


def mlflow_address(provenance: Provenance) -> str | None:
    """Address of the run's page in MLflow's user interface, None for a run that was not tracked.

    The interface is that of the server in MLFLOW_TRACKING_URI, else the one that `make ui` serves.
    """
    if not provenance.mlflow_run_id:
        return None
    server = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    # Whatever stands before the @ is a password.
    address = f"{server.scheme}://{server.netloc.rpartition('@')[2]}{server.path.rstrip('/')}"
    return f"{address if server.scheme in ('http', 'https') else MLFLOW_URL}/#/runs/{provenance.mlflow_run_id}"


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _commit(segment: Segment) -> str:
    commit = (segment.commit or "unknown")[:10]
    return f"{commit} with local changes" if segment.dirty else commit


def marks_here(provenance: Provenance, root: Path = ROOT) -> list[str]:
    """The marks of a run in this checkout: that it was moved, and whether the code that made it has changed.

    Unlike the marks of the tracked report these may differ with every commit.
    """
    marks = [MOVED] if provenance.was_moved else []
    for commit in dict.fromkeys(segment.commit for segment in provenance.segments if segment.commit):
        changed = training_code_changed(commit, root)
        if changed is None:
            marks.append(f"unknown whether training code has changed since commit {commit[:10]}, which is not here")
        elif changed:
            marks.append(f"training code has changed since commit {commit[:10]}")
    return marks + ([DIRTY] if any(segment.dirty for segment in provenance.segments) else [])


@cache
def training_code_changed(commit: str, root: Path = ROOT) -> bool | None:
    """Whether the training code of a checkout differs from that of a commit; None where git does not know it."""
    if not re.fullmatch("[0-9a-f]{7,64}", commit):
        return None
    command = ["git", "-C", str(root), "diff", "--quiet", commit, "--", *TRAINING_CODE]
    try:
        status = subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        return None
    return {0: False, 1: True}.get(status)
