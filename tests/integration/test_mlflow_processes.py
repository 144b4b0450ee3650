"""Many processes, one SQLite file."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (for the children)
import pytest
from mlflow import MlflowClient

from pipeline import tracking
from tests.unit.tracking.run_folders import EPOCHS, make_spec, write_run

PROCESSES = 10


def _one_run(uri: str, store: Path, seed: int, failures: multiprocessing.SimpleQueue[str]) -> None:
    try:
        spec = make_spec(seed=seed)
        run_id = tracking.open_run(uri, write_run(store, spec, 0, "running"), profile="digits")
        for epoch in range(1, EPOCHS + 1):
            folder = write_run(store, spec, epoch, "running")
            if tracking.sync(uri, [folder]).failed:
                failures.put(f"seed {seed}: epoch {epoch} was not taken")
        if run_id is None or tracking.close_run(uri, run_id, write_run(store, spec), "FINISHED") != run_id:
            failures.put(f"seed {seed}: MLflow did not take it")
    except BaseException:
        failures.put(traceback.format_exc())


def test_ten_processes_share_a_new_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = tracking.tracking_uri(tmp_path)
    context = multiprocessing.get_context(
        "fork"
    )  # children inherit the modules: importing MLflow 10 times takes minutes
    failures = context.SimpleQueue()
    children = [
        context.Process(target=_one_run, args=(uri, tmp_path / "runs", seed, failures)) for seed in range(PROCESSES)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0] * PROCESSES
    assert failures.empty(), failures.get()

    client = MlflowClient(tracking_uri=uri)
    [experiment] = [found for found in client.search_experiments() if found.name == "residual-attention/digits"]
    runs = client.search_runs([experiment.experiment_id])
    names = [f"attention56-s{seed}" for seed in range(PROCESSES)]
    assert sorted(run.info.run_name for run in runs) == sorted([*names, "Report", "Table 1", "Table 3", "Table 4"])
    for run in runs:
        if run.data.tags["kind"] == "run":
            points = client.get_metric_history(run.info.run_id, "test/error")
            assert [point.step for point in points] == [1, 2, 3]


def _slow_to_create(uri: str, pause: float) -> None:
    create_run = MlflowClient.create_run

    def create_late(*arguments: object, **options: object) -> object:
        time.sleep(pause)  # the start of the run is already settled
        return create_run(*arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", create_late)
        assert tracking.open_parent(uri, "table", "table1", "digits")


def test_a_run_that_starts_first_and_is_written_last_does_not_stay_beside_another(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    context = multiprocessing.get_context("fork")
    first, second = (context.Process(target=_slow_to_create, args=(uri, pause)) for pause in (3.0, 0.0))
    first.start()
    time.sleep(0.5)
    second.start()
    for child in (first, second):
        child.join(120)
    assert [first.exitcode, second.exitcode] == [0, 0]

    client = MlflowClient(tracking_uri=uri)
    [experiment] = [found for found in client.search_experiments() if found.name == "residual-attention/digits"]
    assert [run.info.run_name for run in client.search_runs([experiment.experiment_id])] == ["Table 1"]
