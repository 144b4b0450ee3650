"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """CPU cores that this process may use, at least 1: those of its affinity, within the limit of its cgroup."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS
    return max(1, min([affinity, *map(int, _cgroup_limits())]))


def _cgroup_limits() -> Iterator[float]:
    """CPU limits, in cores, of the cgroup of this process and of those above it."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        # Inside a container the path may be that of the host, where only the root can be read.
        for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            if folder.is_relative_to(root):
                yield from _limit(folder)


def _limit(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():  # version 2: "<quota> <period>", or "max <period>"
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
            )
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
