"""A tracking store for the tests that log something; MLflow is imported by these alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with its tables, made once: the migrations take seconds."""
    from pipeline import tracking

    root = tmp_path_factory.mktemp("empty-store")
    assert tracking.initialise(f"sqlite:///{root / 'mlflow.db'}")
    return root / "mlflow.db"


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a store of the test's own."""
    from pipeline import tracking

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tracking.tracking_uri(tmp_path)


@pytest.fixture
def client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)
