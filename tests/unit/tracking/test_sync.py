from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from pipeline import tracking
from tests.unit.tracking.run_folders import make_spec, write_run


def everything(client: MlflowClient) -> dict[str, object]:
    """All that MLflow knows of the runs, by name: what two stores must agree on."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {
        run.info.run_name: (
            run.info.status,
            run.info.start_time if "identity" in run.data.tags else None,
            run.data.params,
            {
                key: [
                    (point.step, point.value, point.timestamp)
                    for point in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
                if key in ("test/error", "train/loss", "train/images_per_second")
            },
            dict(run.data.metrics.items()),
            sorted(file.path for file in client.list_artifacts(run.info.run_id)),
        )
        for run in client.search_runs(experiments)
    }


def test_everything_is_rebuilt_from_the_files(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folders = [write_run(tmp_path, make_spec(seed=seed)) for seed in (0, 1)]
    folders.append(write_run(tmp_path, make_spec("attention92"), 1, "paused"))
    folders.append(write_run(tmp_path, make_spec("attention128"), 2, "failed"))
    result = tracking.sync(uri, folders)
    assert result == tracking.SyncResult(runs=4, created=4, points=2 * (3 + 3 + 1 + 2), failed=())
    runs = everything(client)
    assert {name: run[0] for name, run in runs.items()} == {
        "attention56-s0": "FINISHED",
        "attention56-s1": "FINISHED",
        "attention92-s0": "KILLED",
        "attention128-s0": "FAILED",
        "Table 1": "FINISHED",
        "Table 3": "FINISHED",
        "Table 4": "FINISHED",
        "Report": "FINISHED",
    }


def test_a_second_sync_changes_nothing(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folders = [write_run(tmp_path, make_spec(seed=seed)) for seed in (0, 1)]
    tracking.sync(uri, folders)
    before = everything(client)
    assert tracking.sync(uri, folders) == tracking.SyncResult(runs=2, created=0, points=0, failed=())
    assert everything(client) == before


def test_a_run_still_training_is_left_running(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    tracking.sync(uri, [write_run(tmp_path, make_spec(), 1, "running")])
    status, *_ = everything(client)["attention56-s0"]
    assert status == "RUNNING"


def test_only_what_is_missing_is_added(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec(), 1, "running")
    tracking.open_run(uri, folder, profile="digits")
    tracking.sync(uri, [folder])
    write_run(tmp_path, make_spec())
    assert tracking.sync(uri, [folder]) == tracking.SyncResult(runs=1, created=0, points=4, failed=())


def test_a_published_copy_of_a_run_in_the_store_adds_nothing(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "store", make_spec())
    copy = write_run(tmp_path / "published", make_spec())
    (copy / "timing.csv").unlink()
    assert tracking.sync(uri, [folder, copy]).runs == 1
    assert "timing.csv" in everything(client)["attention56-s0"][-1]


def test_a_damaged_folder_is_named_and_keeps_no_other_out(uri: str, tmp_path: Path) -> None:
    folders = [write_run(tmp_path, make_spec(seed=seed)) for seed in range(3)]
    (folders[1] / "provenance.json").write_text("{}")
    done = tracking.sync(uri, folders)
    assert (done.runs, done.failed) == (2, (folders[1].name,))


def test_a_folder_that_never_started_is_passed_over(uri: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec(), 0, "running")
    (folder / "provenance.json").unlink()
    assert tracking.sync(uri, [folder]).runs == 0
