"""A search on real Ray Tune, Ray Train and MLflow: its driver is killed in the middle, and it is continued."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from pipeline.runs.records import CHECKPOINTS, METRICS, Provenance
from pipeline.tuning.trials import Progress, searches, trials
from tests.integration.conftest import Clone
from tests.integration.killing import few_images, kill_when, pipeline, settings

TRIALS = 8

SPACE = """\
trials: 8
stopping: { grace: 0.2, reduction_factor: 2 }
parameters:
  protocol.learning_rate: { low: 0.001, high: 0.5, log: true }
  protocol.milestones.1: { low: 0.3, high: 0.7 }
  protocol.milestones.2: { low: 0.7, high: 0.9 }
  options.t: { low: 1, high: 2 }
"""


def all_trials(clone: Clone) -> list[Progress]:
    (folder,) = searches(clone.root / "runs")
    return trials(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def searched(clone: Clone) -> Clone:
    """A clone whose search was killed after three trials, while others went on, and continued."""
    (clone.root / "conf" / "tune" / "small.yaml").write_text(SPACE)
    few_images(clone)
    settings(clone, iterations=24, milestones=[16, 20])

    def in_the_middle() -> bool:
        if not list(searches(clone.root / "runs")):
            return False
        found = all_trials(clone)
        going = [p for p in found if not p.trial.ended and (p.folder / CHECKPOINTS).is_dir()]
        return sum(progress.trial.ended for progress in found) >= 3 and bool(going)

    kill_when(clone, in_the_middle, "tune", "--space", "small")
    before = {p.folder: content(p.folder) for p in all_trials(clone) if p.trial.ended}
    assert 3 <= len(before) < TRIALS
    refused = clone.run("python", "-m", "pipeline", "tune", "--space", "small", check=False)
    assert refused.returncode == 2 and "--resume continues it" in refused.stderr
    done = pipeline(clone, "tune", "--space", "small", "--resume")
    assert "python -m pipeline compose seconds --override reports/tune/seconds-small/best.yaml" in done.stdout
    for folder, files in before.items():
        assert content(folder) == files, "a trial that had ended was touched again"
    return clone


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_trial_ends_and_some_are_stopped_early(searched: Clone) -> None:
    found = all_trials(searched)
    assert [progress.trial.number for progress in found] == list(range(TRIALS))
    states = [progress.trial.state for progress in found]
    assert set(states) == {"finished", "pruned"}
    for progress in found:
        provenance = Provenance.read(progress.folder)
        assert provenance is not None
        came = provenance.segments[-1].to_iteration
        if progress.trial.state == "pruned":
            assert provenance.status == "paused"
            assert progress.trial.iteration <= came < 24, "it went on after it was stopped"
            assert not (progress.folder / METRICS).exists()
        else:
            assert (provenance.status, came) == ("finished", 24)
        assert not list(progress.folder.glob("checkpoints/*")), "an ended trial keeps no checkpoints"


@pytest.mark.slow
def test_no_trial_has_seen_a_test_image(searched: Clone) -> None:
    prepared = json.loads((searched.root / "data" / "prepared" / "digits" / "manifest.json").read_text())
    split = json.loads((searched.root / "data" / "tune" / "digits" / "manifest.json").read_text())
    assert split["train_images"] + split["test_images"] == prepared["train_images"]
    for progress in all_trials(searched):
        data = json.loads((progress.folder / "config.json").read_text())["data"]
        assert data["checksum"] == split["checksum"] != prepared["checksum"]


@pytest.mark.slow
def test_the_results_name_the_best_trial_and_the_profile_takes_it(searched: Clone) -> None:
    folder = searched.root / "reports" / "tune" / "seconds-small"
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == TRIALS and rows[0]["state"] == "finished"
    finished = [float(row["validation_error"]) for row in rows if row["state"] == "finished"]
    assert float(rows[0]["validation_error"]) == min(finished)
    assert (folder / "coordinates.svg").read_bytes().startswith(b"<?xml")
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["protocol"]["learning_rate"] == pytest.approx(float(rows[0]["protocol.learning_rate"]))
    before = (searched.root / "params.yaml").read_text()
    longer = "protocol.iterations=24"  # as params.yaml has it since `settings`
    pipeline(searched, "compose", "seconds", longer, "--override", str(folder / "best.yaml"))
    after = yaml.safe_load((searched.root / "params.yaml").read_text())
    (searched.root / "params.yaml").write_text(before)
    assert after["protocol"]["milestones"] == best["protocol"]["milestones"]
    assert after["experiments"]["attention56"]["options"]["t"] == int(rows[0]["options.t"])


@pytest.mark.slow
def test_trials_are_nested_in_mlflow_and_those_stopped_early_are_marked(searched: Clone) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{searched.root / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (parent,) = client.search_runs(ids, "tags.kind = 'search'")
    assert parent.info.status == "FINISHED"
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "trials.md", "best.yaml", "coordinates.svg"} <= artifacts
    nested = client.search_runs(ids, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    told = {int(run.data.tags["trial.number"]): run for run in nested}
    assert len(nested) == len(told) == TRIALS
    for progress in all_trials(searched):
        run = told[progress.trial.number]
        assert run.data.tags["trial.state"] == progress.trial.state
        assert run.info.status == ("FINISHED" if progress.trial.state == "finished" else "KILLED")
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "test/error")]
        assert len(steps) == len(set(steps)) >= len(progress.rows)


@pytest.mark.slow
def test_mlflow_is_rebuilt_from_the_trials_folders(searched: Clone) -> None:
    import mlflow

    uri = f"sqlite:///{searched.root / 'again.db'}"
    searched.run("python", "-m", "pipeline", "plan")
    searched.run("python", "-m", "pipeline", "track", "--sync", MLFLOW_TRACKING_URI=uri)
    client = mlflow.MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (parent,) = client.search_runs(ids, "tags.kind = 'search'")
    assert parent.info.status == "FINISHED"
    nested = client.search_runs(ids, f"tags.kind = 'trial' and tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    states = [run.data.tags["trial.state"] for run in nested]
    assert sorted(states) == sorted(progress.trial.state for progress in all_trials(searched))


@pytest.mark.slow
def test_a_search_that_is_done_trains_nothing_more(searched: Clone) -> None:
    before = content(searched.root / "runs" / "tune")
    pipeline(searched, "tune", "--space", "small")
    assert content(searched.root / "runs" / "tune") == before


def test_a_search_is_a_stage_of_its_own_pipeline(clone: Clone) -> None:
    """Plain `dvc repro` takes the stages of ./dvc.yaml; test_dvc_pipeline.py sees that it runs no search."""
    assert "tune" not in clone.run("dvc", "stage", "list").stdout
    assert "tune" not in clone.run("dvc", "stage", "list", "--all").stdout, "a search that nobody asked for"
    asked_for = clone.root / "tune" / "searches.yaml"
    asked_for.write_text("searches: [optimiser, architecture]\n")
    every = clone.run("dvc", "stage", "list", "--all").stdout
    assert re.findall(r"tune/dvc.yaml:tune@(\w+)", every) == ["optimiser", "architecture"]
    pipeline(clone, "fetch", "digits")
    pipeline(clone, "prepare", "digits")
    asked = clone.run("dvc", "repro", "--dry", "--single-item", "tune/dvc.yaml:tune@optimiser").stdout
    assert "python -m pipeline tune --space optimiser --resume" in asked
