from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.tracking import store
from tests.unit.tracking.run_folders import make_spec, write_run

POLL = 0.02


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(POLL)


def steps(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "test/error")]


def test_curves_grow_with_their_files(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folders = [write_run(tmp_path, make_spec(seed=seed), 1, "running") for seed in (0, 1)]
    runs = {tracking.open_run(uri, folder, profile="digits"): folder for folder in folders}
    with tracking.Follower(uri, POLL) as follower:
        for run_id, folder in runs.items():
            follower.add(run_id, folder)
        until(lambda: all(steps(client, run_id) == [1] for run_id in runs))
        for seed in (0, 1):
            write_run(tmp_path, make_spec(seed=seed), 2, "running")
        until(lambda: all(steps(client, run_id) == [1, 2] for run_id in runs))


def test_a_run_no_longer_followed_is_left_to_close_run(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec(), 1, "running")
    run_id = tracking.open_run(uri, folder, profile="digits")
    with tracking.Follower(uri, POLL) as follower:
        follower.add(run_id, folder)
        until(lambda: steps(client, run_id) == [1])
        follower.remove(run_id)
        write_run(tmp_path, make_spec())
        time.sleep(10 * POLL)
        assert steps(client, run_id) == [1]
        tracking.close_run(uri, run_id, folder, "FINISHED")
    assert steps(client, run_id) == [1, 2, 3]


def test_a_file_that_cannot_be_read_yet_is_read_later(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec(), 1, "running")
    run_id = tracking.open_run(uri, folder, profile="digits")
    (folder / "history.csv").write_text("epoch,iteration\n1.0,twenty\n")
    with tracking.Follower(uri, POLL) as follower:
        follower.add(run_id, folder)
        time.sleep(5 * POLL)
        write_run(tmp_path, make_spec(), 1, "running")
        until(lambda: steps(client, run_id) == [1])


def test_a_run_whose_files_make_no_sense_keeps_no_other_from_being_followed(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folders = [write_run(tmp_path, make_spec(seed=seed), 1, "running") for seed in range(2)]
    (folders[0] / "history.csv").unlink()
    (folders[0] / "history.csv").mkdir()
    with tracking.Follower(uri, POLL) as follower:
        for folder in folders:
            follower.add(tracking.open_run(uri, folder, profile="digits"), folder)
        until(lambda: steps(client, tracking.find_run(uri, folders[1])) == [1])


def test_what_an_unreachable_store_misses_is_logged_when_it_is_back(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_run(tmp_path, make_spec(), 2, "running")
    run_id = tracking.open_run(uri, folder, profile="digits")

    def refuse(self: object, *arguments: object, **options: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as broken, tracking.Follower(uri, POLL) as follower:
        broken.setattr(MlflowClient, "log_batch", refuse)
        follower.add(run_id, folder)
        until(lambda: len(caplog.records) == 1)
        time.sleep(5 * POLL)
        broken.undo()
        until(lambda: steps(client, run_id) == [1, 2])
    assert len(caplog.records) == 1
    assert store.store(uri).client() is not None
