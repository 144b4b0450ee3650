"""`launch`, its driver killed in the middle of training, and typed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.runs.records import CHECKPOINTS, HISTORY, Evaluation, Provenance, read_rows
from tests.integration.conftest import Clone
from tests.integration.killing import few_images, kill_when, pipeline, settings
from tests.s3_server import CREDENTIALS, S3Server, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
RUNS = ("attention56", "attention56-nal", "resnet164-noise30")


def folders(clone: Clone) -> dict[str, Path]:
    return {path.name.rpartition("-s0-")[0]: path for path in (clone.root / "runs").glob("*-s0-*")}


def test_a_killed_launch_continues_to_the_numbers_of_one_that_was_not(clone: Clone) -> None:
    few_images(clone)
    settings(clone, iterations=30, milestones=[20, 25])
    pipeline(clone, "plan")

    def has_come_far_enough() -> bool:
        return any(
            (folder / CHECKPOINTS).is_dir()
            and any(path.name.isdecimal() for path in (folder / CHECKPOINTS).iterdir())
            and 1 <= len(read_rows(folder / HISTORY, Evaluation)) <= 2
            for folder in folders(clone).values()
        )

    kill_when(clone, has_come_far_enough, "launch")
    begun = folders(clone)
    statuses = [provenance.status for f in begun.values() if (provenance := Provenance.read(f))]
    assert "running" in statuses, statuses

    done = pipeline(clone, "launch")
    assert set(folders(clone)) == set(RUNS), done.stderr
    segments = {}
    for name, folder in folders(clone).items():
        provenance = Provenance.read(folder)
        assert provenance is not None and provenance.status == "finished", name
        segments[name] = provenance.segments
        assert [row.iteration for row in read_rows(folder / HISTORY, Evaluation)] == [10, 20, 29, 30]
    continued = [name for name, parts in segments.items() if len(parts) == 2 and parts[1].from_iteration > 0]
    assert continued, "no run went on from a checkpoint"
    _each_point_is_in_mlflow_once(clone)

    name = continued[0]
    interrupted = folders(clone)[name].rename(clone.root / "interrupted")
    pipeline(clone, "train", name, "--in-process")
    for file in ("history.csv", "metrics.json", "responses.json", "weights.safetensors"):
        assert (folders(clone)[name] / file).read_bytes() == (interrupted / file).read_bytes(), file


def _each_point_is_in_mlflow_once(clone: Clone) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(ids, "tags.identity != ''")
    assert sorted(run.data.tags["experiment"] for run in found) == sorted(RUNS)
    for run in found:
        assert run.info.status == "FINISHED"
        for metric in ("test/error", "train/loss", "train/images_per_second"):
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            assert steps == [1, 2, 3, 4], (run.data.tags["experiment"], metric)
        folder = folders(clone)[run.data.tags["experiment"]]
        assert run.data.tags["identity"] == json.loads((folder / "config.json").read_text())["identity"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as running:
        yield running


def test_a_run_whose_machine_is_lost_continues_elsewhere_from_the_object_store(clone: Clone, server: S3Server) -> None:
    few_images(clone)
    settings(clone, iterations=90, milestones=[60, 75])  # time for a checkpoint to be taken, pushed and seen
    path = clone.root / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"store": server.url("runs")}, sort_keys=False))
    pipeline(clone, "plan")
    launch = ("launch", "--only", "attention56")
    kill_when(clone, lambda: any(name.endswith("state.json") for name in server.names()), *launch)
    (copies,) = (clone.root / "runs").glob(".copies-*")
    shutil.rmtree(copies)

    assert "about" in pipeline(clone, "launch", "--dry-run", "--only", "attention56").stdout  # it was measured
    pipeline(clone, *launch)
    (folder,) = copies.glob("*-s0-*")
    provenance = Provenance.read(folder)
    assert provenance is not None and provenance.status == "finished"
    assert len(provenance.segments) == 2 and provenance.segments[1].from_iteration > 0
    evaluated = [row.iteration for row in read_rows(folder / HISTORY, Evaluation)]
    assert evaluated == sorted(set(evaluated)) and evaluated[:2] == [10, 20] and evaluated[-1] == 90
    assert f"runs/{folder.name}/weights.safetensors" in server.names()
    assert not any(CHECKPOINTS in name for name in server.names())
