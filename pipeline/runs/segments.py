"""What the segments in a run's provenance say: what it ran on, whether it was moved, and by which code it was made."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

MOVED = "moved between classes of hardware, threads or versions"
DIRTY = "made from a working tree with changes"
ROOT = Path(__file__).resolve().parents[2]
TRAINING_CODE = ("pipeline/training", "models")


def hardware(segment: Mapping[str, Any]) -> str:
    """Device and threads of one stretch of a run."""
    device, threads = str(segment.get("device") or "unknown"), segment.get("threads")
    if not threads or "thread" in device:
        return device
    return f"{device}, {threads} thread{'' if threads == 1 else 's'}"


def versions(segment: Mapping[str, Any]) -> str:
    """Versions of the libraries of one stretch of a run."""
    return ", ".join(f"{name} {version}" for name, version in (segment.get("versions") or {}).items())


def was_moved(provenance: Mapping[str, Any]) -> bool:
    """Whether the stretches of a run ran on different things: then bit-equality is not promised."""
    return len(surroundings(provenance)) > 1


def surroundings(provenance: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Hardware with threads, and library versions, that the segments of a run ran on."""
    return {(hardware(segment), versions(segment)) for segment in provenance["segments"]}


def marks_here(provenance: Mapping[str, Any], root: Path = ROOT) -> list[str]:
    """What is to be said of a run in this checkout, today: that it was moved, and of the code that made it.

    Unlike the marks of the tracked report these may differ with every commit.
    """
    marks = [MOVED] if was_moved(provenance) else []
    segments = provenance["segments"]
    for commit in dict.fromkeys(str(segment["commit"]) for segment in segments if segment.get("commit")):
        changed = training_code_changed(commit, root)
        if changed is None:
            marks.append(f"unknown whether training code has changed since commit {commit[:10]}, which is not here")
        elif changed:
            marks.append(f"training code has changed since commit {commit[:10]}")
    return marks + ([DIRTY] if any(segment.get("dirty") for segment in segments) else [])


@cache
def training_code_changed(commit: str, root: Path = ROOT) -> bool | None:
    """Whether the training code of a checkout differs from that of a commit; None where git cannot tell."""
    if not re.fullmatch("[0-9a-f]{7,64}", commit):
        return None
    command = ["git", "-C", str(root), "diff", "--quiet", commit, "--", *TRAINING_CODE]
    try:
        status = subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        return None
    return {0: False, 1: True}.get(status)
