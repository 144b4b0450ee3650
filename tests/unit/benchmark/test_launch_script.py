"""The script that measures many runs at once starts, and counts what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import launch
from pipeline.runs.records import Provenance
from tests.unit.tracking.run_folders import make_spec, write_run

ROOT = Path(__file__).parents[3]


def test_the_utilisation_of_a_store_is_measured_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec()
    write_run(tmp_path, spec)
    assert Provenance.read(tmp_path / spec.folder_name) is not None
    monkeypatch.setattr(launch, "_measure_logging", lambda seconds: None)
    monkeypatch.setattr(sys, "argv", ["launch", "utilisation", str(tmp_path)])
    launch.main()
    text = capsys.readouterr().out
    assert "cores in use by" in text and "PyTorch" in text


def test_only_the_last_launch_counts() -> None:
    early, late = (0.0, 10.0, 1), (500.0, 510.0, 1)
    assert launch._last_launch([late, early]) == [late]
    assert launch._last_launch([early, (20.0, 30.0, 1)]) == [early, (20.0, 30.0, 1)]


def test_cpu_seconds_include_those_of_child_processes(tmp_path: Path) -> None:
    busy = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}], check=True)"
    assert launch.cpu_seconds([sys.executable, "-c", parent], tmp_path) > 0.4
