"""Trained networks in MLflow: loaded back, registered, the best one marked."""

from __future__ import annotations

import math
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model

from pipeline import tracking
from pipeline.tracking import models
from pipeline.tracking.describe import Described
from tests.unit.tracking.run_folders import write_trained_run


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = tracking.tracking_uri(tmp_path)
    assert tracking.initialise(uri)
    return uri


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_the_logged_model_gives_the_outputs_of_the_network(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.weights import load_model

    folder = write_trained_run(tmp_path / "runs", seed=0)
    run_id = tracking.close_run(uri, None, folder, "FINISHED")
    model = tracking.log_model(uri, run_id, folder)
    assert tracking.log_model(uri, run_id, folder) == model  # once is enough
    assert len(client.search_model_versions("name = 'residual-attention-digits'")) == 1

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = load_model(folder / "weights.safetensors").eval()(images)
        for address in (model, "models:/residual-attention-digits@best"):
            torch.testing.assert_close(mlflow.pytorch.load_model(address)(images), expected, rtol=0, atol=0)
    predicted = mlflow.pyfunc.load_model(model).predict(images.numpy())
    torch.testing.assert_close(torch.from_numpy(predicted), expected, rtol=0, atol=0)
    [output] = client.get_run(run_id).outputs.model_outputs
    assert (f"models:/{output.model_id}", output.step) == (model, 60)


def test_best_is_the_version_of_its_profile_with_the_lowest_test_error(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_save", _save_nothing)
    best = []
    for seed, test_error in enumerate((5.0, 6.0, math.pi, 4.0)):
        folder = write_trained_run(tmp_path / "runs", seed, test_error)
        tracking.log_model(uri, tracking.close_run(uri, None, folder, "FINISHED"), folder)
        version = client.get_model_version_by_alias("residual-attention-digits", "best")
        best.append(float(version.tags["test_error"]))
    assert best == [5.0, 5.0, math.pi, math.pi]


def _save_nothing(run: Described, target: Path, entry: Model) -> None:
    target.mkdir()
    entry.save(str(target / "MLmodel"))


def test_warnings_of_other_parts_are_still_heard(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    root = logging.getLogger()
    before = root.level, list(root.handlers)
    with models._logging_kept():
        logging.basicConfig(level=logging.ERROR, force=True)
    assert (root.level, root.handlers) == before
