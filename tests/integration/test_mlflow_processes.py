"""Many processes, one SQLite file."""

from __future__ import annotations

import multiprocessing
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
            points = client.get_metric_history(run.info.run_id, "test_error")
            assert [point.step for point in points] == [20, 40, 60]
