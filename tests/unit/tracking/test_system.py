from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.tracking import system
from tests.unit.tracking.run_folders import make_spec, write_run


def test_each_machine_of_a_run_is_sampled_into_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SHORTEST", 0.01)
    for node in ("node1", "node2.example/0"):
        with tracking.SystemLog(tmp_path, node):
            time.sleep(0.05)
    samples = system.read_system(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"system-node1.csv", "system-node2.example-0.csv"}
    keys = {key for _, _, values in samples for key in values}
    assert {"system/node1/cpu_utilization_percentage", "system/node2.example-0/system_memory_usage_megabytes"} <= keys
    assert samples[-1][2]["system/node2.example-0/system_memory_usage_percentage"] > 0


def test_a_run_ends_at_once_however_long_the_sampling_interval(tmp_path: Path) -> None:
    begun = time.monotonic()
    with tracking.SystemLog(tmp_path, "node1"):
        pass
    assert time.monotonic() - begun < system.SHORTEST
    assert len(system.read_system(tmp_path)) == 1  # a run of a moment has one sample


def test_a_sample_costs_next_to_nothing() -> None:
    sample = system.sampler()
    begun = time.process_time()
    for _ in range(20):
        sample()
    assert (time.process_time() - begun) / 20 < 0.01 * system.SHORTEST


def test_a_resumed_run_continues_its_file_past_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "system-node1.csv").write_text("milliseconds,cpu_utilization_percentage\n1000,50.0\n2000,\n")
    assert system.read_system(tmp_path) == [(0, 1000, {"system/node1/cpu_utilization_percentage": 50.0})]


def test_system_metrics_reach_mlflow_once(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec())
    (folder / "system-node1.csv").write_text("milliseconds,cpu_utilization_percentage\n1000,50.0\n6000,75.0\n")
    tracking.sync(uri, [folder])
    run_id = tracking.close_run(uri, None, folder, "FINISHED")
    points = client.get_metric_history(run_id, "system/node1/cpu_utilization_percentage")
    assert [(point.step, point.timestamp, point.value) for point in points] == [(0, 1000, 50.0), (1, 6000, 75.0)]
