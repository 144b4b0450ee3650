"""The runs of a project as one DataFrame."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import runs
from pipeline.runs.records import METRICS, PROGRESS
from tests.unit.tracking.run_folders import EPOCH, EPOCHS, make_spec, write_run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A finished, a paused and a damaged run in the store; the first two of them are published, finished."""
    finished = write_run(tmp_path / "runs", make_spec(), error=2.5)
    write_run(tmp_path / "runs", make_spec("attention92"), 2, "paused")
    damaged = write_run(tmp_path / "runs", make_spec("resnet164"))
    (damaged / METRICS).write_text("{}")
    shutil.copytree(finished, tmp_path / "published" / "digits" / finished.name)
    write_run(tmp_path / "published" / "digits", make_spec("attention92"))
    return tmp_path


def test_one_row_a_run_has_configuration_error_time_hardware_and_provenance(project: Path) -> None:
    frame = runs.as_frame(root=project)
    assert list(frame["experiment"].dropna()) == ["attention56", "attention92"] and len(frame) == 3
    row = frame.loc[make_spec().folder_name]
    assert row["status"] == "finished" and row["verified"] and row["test_error"] == 2.5
    assert row["iteration"] == EPOCH * EPOCHS and row["seed"] == 0
    assert row["profile"] == "digits" and row["data.dataset"] == "digits"
    assert row["network.options.learning"] == "arl" and row["protocol.milestones"] == [24, 36]
    assert row["seconds"] == 30 and row["hardware"] == "cpu: Example, 1 thread" and row["commit"] == "c0ffee"
    assert Path(row["folder"]).parent.name == "runs"


def test_a_finished_copy_counts_before_one_that_is_not_finished(project: Path) -> None:
    row = runs.as_frame(root=project).loc[make_spec("attention92").folder_name]
    assert row["status"] == "finished" and Path(row["folder"]).parts[-3] == "published"


def test_a_damaged_run_has_a_row_that_names_the_file_and_no_number(project: Path) -> None:
    row = runs.as_frame(root=project).loc[make_spec("resnet164").folder_name]
    assert row["status"] == "damaged" and METRICS in row["problem"]
    assert row[["test_error", "iteration", "seconds"]].isna().all()


def test_an_unfinished_run_has_its_last_evaluation_and_its_progress(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", make_spec(), 2, "running")
    frame = runs.as_frame(root=tmp_path)
    assert (frame.status.iloc[0], frame.iteration.iloc[0], frame.test_error.iloc[0]) == ("running", 40, 90 / 40)
    (folder / PROGRESS).write_text(
        '{"iteration": 55, "iterations": 60, "epoch": 2.75, "test_error": 2.25, "train_loss": 0.1,'
        ' "images_per_second": 9.5, "seconds_left": 1}'
    )
    assert runs.as_frame(root=tmp_path).iteration.iloc[0] == 55
    (folder / PROGRESS).write_text('{"iteration": 5')  # being replaced
    assert runs.as_frame(root=tmp_path).iteration.iloc[0] == 40


def test_a_project_without_runs_has_an_empty_frame_with_the_usual_columns(tmp_path: Path) -> None:
    frame = runs.as_frame(root=tmp_path)
    assert frame.empty and {"status", "test_error", "folder"} <= set(frame.columns)
