"""The default store: moved, damaged, from another MLflow, in folders with unusual names."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.cli import main
from pipeline.launch import doctor
from pipeline.settings import config
from pipeline.tracking.database import moved_from
from tests.unit.tracking.run_folders import make_spec, write_run

ROOT = Path(__file__).parents[3]
SETTINGS = config.load(ROOT / "params.yaml")


def write_project(root: Path, empty_store: Path) -> str:
    """A project with one finished run in its MLflow store; the id of the run there."""
    root.mkdir(parents=True)
    shutil.copyfile(empty_store, root / "mlflow.db")
    run_id = tracking.close_run(tracking.tracking_uri(root), None, write_run(root / "runs", make_spec()), "FINISHED")
    assert run_id is not None
    return run_id


def artifact(root: Path, run_id: str, name: str = "metrics.json") -> Path:
    """Where a store says that an artifact of a run is."""
    uri = MlflowClient(tracking.tracking_uri(root)).get_run(run_id).info.artifact_uri
    return Path(unquote(urlsplit(uri).path)) / name


@pytest.fixture(autouse=True)
def _no_store_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_artifacts_of_a_moved_or_copied_project_open_again_and_stay_in_it(
    how: Callable[[Path, Path], None], tmp_path: Path, empty_store: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new place"
    run_id = write_project(old, empty_store)
    how(old, new)
    before = sorted(old.rglob("*"))
    finding = doctor.mlflow(SETTINGS, new)
    assert not finding.fine
    assert f"moved or copied from {old}" in finding.found
    assert finding.cure == "python -m pipeline track --sync"

    uri = tracking.tracking_uri(new)
    done = tracking.sync(uri, [new / "runs" / make_spec().folder_name, write_run(new / "runs", make_spec(seed=1))])
    assert (done.runs, done.created, done.failed) == (2, 1, ())
    assert artifact(new, run_id).is_relative_to(new)
    assert artifact(new, run_id).is_file()
    assert Path(MlflowClient(uri).download_artifacts(run_id, "metrics.json", str(tmp_path))).is_file()
    assert sorted(old.rglob("*")) == before, "nothing was written into the old folder"
    assert doctor.mlflow(SETTINGS, new).fine


def test_a_project_that_moves_into_its_own_folder_keeps_the_right_places(uri: str, tmp_path: Path) -> None:
    client, inner = MlflowClient(uri), tmp_path / "inner"
    inner.mkdir()
    for profile, place in {"smoke": tmp_path, "digits": inner}.items():
        client.create_experiment(f"residual-attention/{profile}", (place / "mlartifacts" / profile).as_uri())
    shutil.copyfile(tmp_path / "mlflow.db", inner / "mlflow.db")
    assert tracking.initialise(tracking.tracking_uri(inner))
    for profile in ("smoke", "digits"):
        found = MlflowClient(tracking.tracking_uri(inner)).get_experiment_by_name(f"residual-attention/{profile}")
        assert found is not None and found.artifact_location == (inner / "mlartifacts" / profile).as_uri()


def test_models_of_a_moved_project_are_found_in_it(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("residual-attention/digits", (tmp_path / "mlartifacts" / "digits").as_uri())
    run_id = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, "attention56-s0", run_id)
    client.create_registered_model("residual-attention-digits")
    client.create_model_version("residual-attention-digits", model.artifact_location, run_id, model_id=model.model_id)
    new = tmp_path / "new"
    new.mkdir()
    shutil.copyfile(tmp_path / "mlflow.db", new / "mlflow.db")
    assert tracking.initialise(tracking.tracking_uri(new))
    there = MlflowClient(tracking.tracking_uri(new), tracking.tracking_uri(new))
    [version] = there.search_model_versions("name = 'residual-attention-digits'")
    here = (new / "mlartifacts").as_uri()
    assert version.source.startswith(here)
    assert there.get_logged_model(model.model_id).artifact_location.startswith(here)
    assert client.get_logged_model(model.model_id).artifact_location == model.artifact_location


def test_artifacts_that_are_gone_are_logged_again(tmp_path: Path, empty_store: Path) -> None:
    root = tmp_path / "project"
    run_id = write_project(root, empty_store)
    shutil.rmtree(root / "mlartifacts")
    assert tracking.sync(tracking.tracking_uri(root), [root / "runs" / make_spec().folder_name]).points == 0
    assert artifact(root, run_id).is_file()
    assert artifact(root, run_id, "masks.png").is_file()


def test_artifacts_that_were_put_elsewhere_stay_there(tmp_path: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    client = MlflowClient(tracking.tracking_uri(tmp_path))
    for profile, place in {"digits": "s3://bucket/mlartifacts/digits", "cifar10": "/big/disk/digits"}.items():
        client.create_experiment(f"residual-attention/{profile}", place)
    assert moved_from(tmp_path / "mlflow.db") is None


def a_folder(path: Path) -> None:
    path.mkdir()


def garbage(path: Path) -> None:
    path.write_bytes(b"no database\n" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (a_folder, "a folder, not a database"),
        (garbage, "file is not a database"),
        (cut, "malformed"),
        (loop, "a link that leads in a circle"),
        (newer, "made by a newer MLflow"),
    ],
)
def test_a_database_that_cannot_be_used_stops_nothing_and_the_cure_works(
    damage: Callable[[Path], None],
    named: str,
    tmp_path: Path,
    empty_store: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = tmp_path / "mlflow.db"
    if damage in (cut, newer):
        shutil.copyfile(empty_store, database)
    damage(database)
    uri, folder = tracking.tracking_uri(tmp_path), write_run(tmp_path / "runs", make_spec())
    assert tracking.open_run(uri, folder, profile="digits") is None
    assert tracking.close_run(uri, None, folder, "FINISHED") is None
    [warning] = caplog.records
    cure = f"mv {database} {database}.old && python -m pipeline track --sync"
    assert named in warning.getMessage()
    assert warning.getMessage().endswith(cure)
    finding = doctor.mlflow(SETTINGS, tmp_path)
    assert named in finding.found
    assert finding.cure == cure
    monkeypatch.chdir(tmp_path)
    assert main(["ui", "--port", "65533"]) == 1
    assert "http" not in capsys.readouterr().out

    database.rename(f"{database}.old")
    shutil.copyfile(empty_store, database)
    assert tracking.sync(uri, [folder]).created == 1


def test_a_database_that_the_user_named_is_not_moved_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}")
    assert doctor.mlflow(SETTINGS, ROOT).cure == "unset MLFLOW_TRACKING_URI && python -m pipeline track --sync"


def test_a_database_of_an_older_mlflow_is_upgraded_by_mlflow(
    tmp_path: Path, empty_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    uri = tracking.tracking_uri(tmp_path)
    assert not tracking.initialise(uri)
    assert f"mlflow db upgrade {uri} && python -m pipeline track --sync" in caplog.text


@pytest.mark.parametrize(
    ("name", "project"), [("per%cent %41", "one"), ("question?mark", "two"), ("hash#&;(it)", "three")]
)  # the database has a relative URI there, which MLflow caches in a process: so each project has another name
def test_a_project_in_a_folder_with_an_unusual_name_has_its_store_there(
    name: str, project: str, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / name
    root.mkdir()
    monkeypatch.chdir(root)
    run_id = write_project(root / project, empty_store)
    here = root / project / "mlartifacts" / "digits" / run_id / "artifacts" / "metrics.json"
    assert artifact(root / project, run_id) == here
    assert here.is_file()
    assert {path.name for path in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize("name", ["../../x", "/etc", "a/b", "digits\n", "<script>", "", "digits' OR '1' = '1"])
def test_a_profile_that_is_no_name_becomes_no_path(name: str, uri: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", make_spec())
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(provenance | {"profile": name}))
    (folder / "checksums.json").unlink(missing_ok=True)
    assert tracking.sync(uri, [folder]).failed == (folder.name,)
    assert not (tmp_path / "mlartifacts").exists()
