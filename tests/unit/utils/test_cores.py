"""The cores that a process may use, not those that the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.utils import cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of eight cores without limits; the folder of its cgroups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path / "cgroup"


def test_without_limits_the_affinity_decides(machine: Path) -> None:
    assert cores.available_cores() == 8
    (machine.parent / "membership").write_text("0::/user\n")
    assert cores.available_cores() == 8


@pytest.mark.parametrize(
    ("line", "files", "count"),
    [
        ("0::/user/job", {"user/job/cpu.max": "300000 100000\n"}, 3),
        ("0::/user/job", {"user/job/cpu.max": "max 100000\n"}, 8),
        ("0::/user/job", {"user/job/cpu.max": "max 100000\n", "user/cpu.max": "200000 100000\n"}, 2),  # of a parent
        ("0::/on/the/host", {"cpu.max": "150000 100000\n"}, 1),  # in a container: rounded down
        ("0::/", {"cpu.max": "50000 100000\n"}, 1),  # never none
        ("0::/", {"cpu.max": "1600000 100000\n"}, 8),
        ("4:cpu:/job", {"cpu/job/cpu.cfs_quota_us": "400000", "cpu/job/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8),
        ("0::/", {"cpu.max": "broken"}, 8),
    ],
)
def test_the_limit_of_a_cgroup_counts(machine: Path, line: str, files: dict[str, str], count: int) -> None:
    (machine.parent / "membership").write_text(f"7:memory:/elsewhere\n{line}\n")
    for name, content in files.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(content)
    assert cores.available_cores() == count


def test_the_affinity_of_a_process_counts() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores.available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
