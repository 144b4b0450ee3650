"""A Ray cluster of two nodes, both on this machine: one run trained across them, and several side by side."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from pipeline.runs.records import Evaluation, Provenance, Segment, read_rows
from tests.integration.conftest import Clone
from tests.integration.killing import few_images, pipeline, settings
from tests.integration.nodes import two_nodes
from tests.s3_server import CREDENTIALS, S3Server, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

RUNS = ("attention56", "attention56-nal", "resnet164-noise30")


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def server(environment: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(clone: Clone, environment: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that asks for a token."""
    with two_nodes(clone, environment) as address:
        yield address


@pytest.fixture(scope="module")
def prepared(clone: Clone) -> Clone:
    few_images(clone)
    return clone


def configure(clone: Clone, store: str, workers: int, **protocol: object) -> None:
    settings(clone, **protocol)
    path = clone.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["store"] = store
    tree["resources"]["workers"] = workers
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def segments(folder: Path) -> tuple[Segment, ...]:
    provenance = Provenance.read(folder)
    assert provenance is not None and provenance.status == "finished", folder
    return provenance.segments


def test_one_run_is_trained_across_two_nodes(prepared: Clone, cluster: str) -> None:
    configure(prepared, "runs", workers=2, iterations=12, milestones=[8])
    pipeline(prepared, "plan")
    told = pipeline(prepared, "launch", "--only", "attention56")
    assert "1 runs to train, 1 at once, each on 2 workers with 1 thread" in told.stderr
    (folder,) = (prepared.root / "runs").glob("attention56-s0-*")
    (segment,) = segments(folder)
    assert segment.workers == 2
    assert [row.iteration for row in read_rows(folder / "history.csv", Evaluation)] == [10, 12]


def test_runs_train_side_by_side_and_their_files_go_to_an_object_store(
    prepared: Clone, cluster: str, server: S3Server
) -> None:
    configure(prepared, server.url("runs"), workers=1, iterations=100, milestones=[75])
    pipeline(prepared, "plan")
    told = pipeline(prepared, "launch")
    assert "3 runs to train, 2 at once, each on 1 worker with 1 thread" in told.stderr

    (copies,) = (prepared.root / "runs").glob(".copies-*")
    folders = {path.name.rpartition("-s0-")[0]: path for path in copies.glob("*-s0-*")}
    assert set(folders) == set(RUNS)
    times = sorted(
        (datetime.fromisoformat(s.started).timestamp(), s.seconds) for f in folders.values() for s in segments(f)
    )
    (first, seconds), (second, _), _ = times
    assert second < first + seconds, "one run waited for another"

    kept = server.names()
    for folder in folders.values():
        mine = {name.removeprefix(f"runs/{folder.name}/") for name in kept if name.startswith(f"runs/{folder.name}/")}
        assert {"metrics.json", "weights.safetensors", "history.csv", "provenance.json", "log.txt"} <= mine
        assert not any(name.startswith("checkpoints/") for name in mine)
    _is_in_mlflow(prepared, folders["attention56"])


def _is_in_mlflow(clone: Clone, folder: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    identity = json.loads((folder / "config.json").read_text())["identity"]
    (run,) = client.search_runs(ids, f"tags.identity = '{identity}'")
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "test/error")]
    assert steps == list(range(1, len(read_rows(folder / "history.csv", Evaluation)) + 1))
    machine = segments(folder)[0].hostname
    assert f"system/{machine}/cpu_utilization_percentage" in run.data.metrics
    assert "weights.safetensors" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_another_checkout_collects_from_the_object_store_what_it_has_not_trained(
    prepared: Clone, server: S3Server
) -> None:
    (copies,) = (prepared.root / "runs").glob(".copies-*")
    copies.rename(prepared.root / "forgotten")
    traced = pipeline(prepared, "trace", "table3/attention56/nal").stdout
    (brought,) = copies.glob("attention56-nal-s0-*")
    assert brought.name in traced and "pending" not in traced
    shutil.rmtree(copies)
    listed = pipeline(prepared, "runs", "list").stdout
    assert [line.split()[2] for line in listed.splitlines()] == ["finished"] * 3
    told = pipeline(prepared, "train", "attention56-nal").stdout
    assert "from the store" in told
    assert "nothing pending" in pipeline(prepared, "launch", "--dry-run").stdout


def test_who_does_not_have_the_token_is_refused(prepared: Clone, cluster: str) -> None:
    done = prepared.run(sys.executable, "-m", "pipeline", "doctor", check=False, RAY_AUTH_TOKEN="guessed" * 8)
    (line,) = [line for line in done.stdout.splitlines() if " Ray " in line]
    assert line.startswith("WRONG") and "token" in line
    assert os.environ["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr
