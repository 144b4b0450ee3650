"""A real MLflow server that dies while runs train, and comes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient

from models.weights import load_model
from pipeline import tracking
from pipeline.tracking import store
from tests.integration.mlflow_server import MlflowServer
from tests.unit.tracking.run_folders import make_spec, write_run, write_trained_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path_factory.mktemp("server")) as running:
        yield running


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def steps(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "test/error")]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record for record in caplog.records if record.name == "pipeline.tracking"]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.getMessage() for record in found]


def test_a_server_killed_and_started_again_loses_nothing(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "REST_SECONDS", 0.5)
    client = MlflowClient(server.uri)
    folder = write_run(tmp_path, make_spec(), 1, "running")
    assert tracking.initialise(server.uri)
    run_id = tracking.open_run(server.uri, folder, profile="digits")
    with tracking.Follower(server.uri, 0.1) as follower:
        follower.add(run_id, folder)
        until(lambda: steps(client, run_id) == [1])

        server.kill()
        write_run(tmp_path, make_spec(), 2, "running")
        until(lambda: len(warnings(caplog)) == 1)
        begun = time.monotonic()
        others = [write_run(tmp_path, make_spec(seed=seed), 1, "running") for seed in (1, 2, 3)]
        assert [tracking.open_run(server.uri, other, profile="digits") for other in others] == [None] * 3
        write_run(tmp_path, make_spec(seed=1))
        assert tracking.close_run(server.uri, None, others[0], "FINISHED") is None
        assert time.monotonic() - begun < 60  # minutes, where MLflow tried again and again
        assert len(warnings(caplog)) == 1

        server.start()
        until(lambda: steps(client, run_id) == [1, 2])
        follower.remove(run_id)
    for seed in (0, 2, 3):
        write_run(tmp_path, make_spec(seed=seed))
    assert tracking.close_run(server.uri, run_id, folder, "FINISHED") == run_id
    late = tracking.close_run(server.uri, None, others[1], "FINISHED")  # it began while the server was away
    assert steps(client, run_id) == steps(client, late) == [1, 2, 3]
    missing = tracking.SyncResult(runs=4, created=2, points=12, failed=())  # the runs that ended then, or never came up
    assert tracking.sync(server.uri, [folder, *others]) == missing
    assert tracking.sync(server.uri, [folder, *others]) == tracking.SyncResult(4, 0, 0, ())
    assert "metrics.json" in {file.path for file in client.list_artifacts(run_id)}
    assert len(warnings(caplog)) == 1


def test_a_model_goes_to_the_server_and_back(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_trained_run(tmp_path, seed=9)
    run_id = tracking.close_run(server.uri, None, folder, "FINISHED")
    assert tracking.log_model(server.uri, run_id, folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loaded = mlflow.pytorch.load_model("models:/residual-attention-digits@best")(images)
        expected = load_model(folder / "weights.safetensors").eval()(images)
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
