"""Which network is the best of a profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from pipeline import tracking
from pipeline.runs.records import Provenance
from pipeline.tracking import models
from pipeline.tracking.describe import Described
from tests.unit.tracking.run_folders import EPOCH, EPOCHS, make_spec, write_run

ROOT = Path(__file__).parents[3]
NAME = "residual-attention-digits"


@pytest.fixture(autouse=True)
def _export_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(run: Described, target: Path, entry: Model) -> None:
        target.mkdir()
        entry.save(str(target / "MLmodel"))

    monkeypatch.setattr(models, "_save", save)


def write(store: Path, name: str, error: float, *, noise: int = 0, iterations: int = 60, dirty: bool = False) -> Path:
    spec = make_spec(name, noise=noise)
    spec = replace(spec, protocol=replace(spec.protocol, iterations=iterations, milestones=()))
    folder = write_run(store, spec, error=error, weights=name.encode())
    provenance = Provenance.read(folder)
    assert provenance is not None
    replace(provenance, segments=(replace(provenance.segments[0], dirty=dirty),)).write(folder)
    return folder


def test_the_best_is_the_lowest_error_of_clean_unedited_full_length_runs_of_the_profile(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "full_length", lambda profile, root: EPOCHS * EPOCH)
    folders = [
        write(tmp_path / "runs", "attention92-noise50", 1.0, noise=50),
        write(tmp_path / "runs", "attention92", 2.0, iterations=4),
        write(tmp_path / "runs", "attention128", 3.0, dirty=True),
        write(tmp_path / "runs", "attention56", 5.0),
        write(tmp_path / "runs", "attention56-nal", 6.0),
    ]
    for folder in folders:
        tracking.close_run(uri, None, folder, "FINISHED")
    assert tracking.log_models(uri, folders, "digits", "best", tmp_path) == 1
    assert [version.tags["run"] for version in client.search_model_versions(f"name = '{NAME}'")] == ["attention56-s0"]
    assert tracking.log_models(uri, folders, "digits", "all", tmp_path) == len(folders)
    [model] = client.search_registered_models()
    assert model.name == NAME
    versions = {version.tags["run"]: version.tags for version in client.search_model_versions(f"name = '{NAME}'")}
    assert len(versions) == len(folders)
    assert client.get_model_version_by_alias(NAME, "best").tags["run"] == "attention56-s0"
    assert versions["attention92-noise50-s0"]["may_be_best"] == "its labels are noisy"


def test_a_trial_run_of_few_iterations_is_a_version_and_not_the_best(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = write(tmp_path / "runs", "attention56", 85.0, iterations=4)
    tracking.close_run(uri, None, folder, "FINISHED")
    assert tracking.log_models(uri, [folder], "digits", "best", ROOT) == 1
    [version] = client.search_model_versions(f"name = '{NAME}'")
    assert version.tags["may_be_best"] == "it has not the 135 iterations of the profile"
    assert client.get_registered_model(NAME).aliases == {}


def test_a_model_whose_files_are_gone_is_logged_again(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    import shutil

    folder = write(tmp_path / "runs", "attention56", 5.0)
    run_id = tracking.close_run(uri, None, folder, "FINISHED")
    first = tracking.log_model(uri, run_id, folder)
    assert tracking.log_model(uri, run_id, folder) == first
    shutil.rmtree(tmp_path / "mlartifacts")
    second = tracking.log_model(uri, run_id, folder)
    assert second not in (None, first)
    assert client.list_logged_model_artifacts(second.removeprefix("models:/"))
