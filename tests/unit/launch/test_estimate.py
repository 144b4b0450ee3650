"""What pending runs cost, from the throughput that earlier ones have reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.launch import probe
from pipeline.launch.driver import Driver
from pipeline.launch.estimate import outlook
from pipeline.runs.records import Metrics, Provenance
from pipeline.runs.spec import RunSpec
from pipeline.utils.files import write_json
from tests.plans import make_plan
from tests.unit.tracking.run_folders import make_segment, make_spec, write_run

CPU, GPU = "cpu: Example", "cuda: Example"
HOUR = 3 * 1000 * 128.0 * 3600  # multiply-adds of training in an hour, at 1000 a pass and 128 images a second


def small(name: str) -> RunSpec:
    spec = make_spec(name)
    return replace(spec, network=replace(spec.network, name=f"cifar_{name}"))


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    specs = [small(name) for name in ("attention56", "attention92", "attention164")]
    return Driver(make_plan(specs, costs=[int(hours * HOUR) for hours in (1, 2, 300)]), tmp_path)


def measured(driver: Driver, name: str, folder: str = "runs", **changes: object) -> None:
    """A run that was begun, at 128 images a second unless `changes` say otherwise."""
    spec = small(name)
    place = driver.root / folder / spec.folder_name
    write_json(place / "config.json", spec.to_json())
    Provenance("paused", "digits", (replace(make_segment(0, 60), **{"device": CPU, **changes}),)).write(place)


def test_a_probe_measures_each_network_here_and_is_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "run_apart", lambda function, job, seconds, environment: function(job))
    measured(driver, "attention56")
    specs = [small("attention56")] * 2
    [found] = probe.probe(driver, specs, seconds=0.01)
    assert found.unit == ("GPU" if torch.cuda.is_available() else "CPU")
    assert list(found.measured) == ["cifar_attention56"] and found.measured["cifar_attention56"][0] > 0
    assert f"at the throughput of a probe on {found.device}" in outlook(driver, specs[:1], [found])


def pending(driver: Driver, *names: str) -> list[str]:
    return outlook(driver, [small(name) for name in names]).splitlines()


def test_nothing_measured_is_said_and_how_to_measure(driver: Driver) -> None:
    lines = pending(driver, "attention56")
    assert lines[0].split() == ["attention56-s0", "1.38e+09", "multiply-adds"]
    assert lines[1].startswith("1 of 3 runs pending: 1.38e+09 multiply-adds")
    assert "time unknown: no run was measured here yet (`python -m pipeline launch --stop-after 2` does)" in lines[2]


def test_a_run_costs_what_its_network_cost_before_and_others_the_median(driver: Driver) -> None:
    measured(driver, "attention56")
    measured(driver, "attention92", images_per_second=64.0)
    lines = pending(driver, "attention164", "attention92", "attention56")
    assert [line.split()[1:] for line in lines[:3]] == [["400", "CPU-hours"], ["4", "CPU-hours"], ["1", "CPU-hours"]]
    assert lines[4].strip() == f"about 405 CPU-hours at the throughput of earlier runs on {CPU}"


def test_hours_are_those_of_a_core_or_of_a_gpu(driver: Driver) -> None:
    measured(driver, "attention56", workers=2, threads=4)  # eight cores reached 128 images a second
    assert pending(driver, "attention56")[0].split()[1:] == ["8", "CPU-hours"]
    measured(driver, "attention56", device=GPU, gpus=0.25)  # a quarter of a GPU did
    assert pending(driver, "attention56")[0].split()[1:] == ["0.25", "GPU-hours"]


def test_a_run_of_another_profile_counts_by_what_it_cost_there(driver: Driver) -> None:
    measured(driver, "attention56", "published/other")
    driver.plan.runs["attention56-s0"].config["identity"] = "of another"  # type: ignore[index]
    assert "time unknown" in pending(driver, "attention56")[2]  # it is not finished: nobody knows what it cost
    [place] = (driver.root / "published" / "other").iterdir()
    metrics = Metrics.read(write_run(driver.root, small("attention56")))
    replace(metrics, multiply_adds=2000).write(place)
    assert pending(driver, "attention56")[0].split()[1:] == ["0.5", "CPU-hours"]


def test_published_runs_count_and_what_cannot_be_read_does_not(driver: Driver) -> None:
    measured(driver, "attention56", "published/digits")
    (driver.root / "published" / "digits" / "torn").mkdir()
    (driver.root / "published" / "digits" / "torn" / "config.json").write_text("{")
    assert pending(driver, "attention56")[0].split()[1:] == ["1", "CPU-hours"]
