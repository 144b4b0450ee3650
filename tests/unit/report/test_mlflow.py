"""Models, reports, and everything again from the files of a project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from pipeline.cli import main
from pipeline.launch.driver import Driver
from pipeline.report.reporting import log_report, synchronise
from pipeline.tracking import models
from pipeline.tracking.describe import Described
from pipeline.tuning.trials import SearchConfig, State, Trial
from tests.plans import make_plan
from tests.unit.tracking.run_folders import make_spec, write_run

ERRORS = (5.0, 3.0, 4.0)
ROOT = Path(__file__).parents[3]


def project(root: Path, wanted: str = "best") -> Driver:
    """A project with three finished runs, the second the best of them, and one that has no weights here."""
    specs = [make_spec(seed=seed) for seed in range(len(ERRORS) + 1)]
    plan = make_plan(specs, models=wanted, tracked=True)
    for spec, error in zip(specs, (*ERRORS, 1.0), strict=True):
        weights = f"weights of seed {spec.seed}".encode() if error > 1 else None
        write_run(root / "runs", spec, error=error, weights=weights)
    return Driver(plan, root)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose network was exported; the export itself is tested with MLflow's models."""
    names: list[str] = []

    def save(run: Described, target: Path, entry: Model) -> None:
        names.append(run.name)
        target.mkdir()
        entry.save(str(target / "MLmodel"))

    monkeypatch.setattr(models, "_save", save)
    return names


@pytest.mark.parametrize(
    ("wanted", "logged"),
    [("none", []), ("best", ["attention56-s1"]), ("all", ["attention56-s0", "attention56-s1", "attention56-s2"])],
)
def test_models_are_logged_as_the_profile_wants_and_once(
    uri: str, client: MlflowClient, tmp_path: Path, saved: list[str], wanted: str, logged: list[str]
) -> None:
    driver = project(tmp_path, wanted)
    for _ in synchronise(driver, uri):
        pass
    assert saved == logged
    assert dict(synchronise(driver, uri))[f"{len(logged)} logged models"]
    assert saved == logged, "logged again"
    if logged:
        best = client.get_model_version_by_alias("residual-attention-digits", "best")
        assert float(best.tags["test_error"]) == min(ERRORS)


def test_models_of_every_profile_are_rebuilt_as_that_profile_wants(uri: str, tmp_path: Path, saved: list[str]) -> None:
    driver = project(tmp_path)
    for name in ("attention92", "attention128"):
        write_run(tmp_path / "runs", make_spec(name), profile="cifar10", weights=name.encode())
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    assert dict(synchronise(driver, uri))["3 logged models"]
    assert saved == ["attention128-s0", "attention92-s0", "attention56-s1"], "all of cifar10, the best of digits"


def test_mlflow_is_rebuilt_in_a_fresh_clone_that_has_no_plan(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "published" / "digits", make_spec())
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["track", "--sync"]) == 0
    [experiment] = client.search_experiments(filter_string="name = 'residual-attention/digits'")
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'run'")) == 1


@pytest.mark.parametrize(("last", "status"), [("pruned", "FINISHED"), ("failed", "FINISHED"), ("running", "KILLED")])
def test_a_rebuilt_search_holds_its_trials_and_has_ended_as_they_have(
    uri: str, client: MlflowClient, tmp_path: Path, last: State, status: str
) -> None:
    driver = project(tmp_path, "none")
    search = tmp_path / "runs" / "tune" / "digits-small-0123456789ab"
    for number, state in enumerate(("finished", last)):
        folder = write_run(search, make_spec(f"attention56-trial{number:03d}"))
        Trial(number, {"protocol.gamma": 0.1}, state).write(folder)
    space = {
        "trials": 2,
        "stopping": {"grace": 0.3, "reduction_factor": 3},
        "parameters": {"protocol.gamma": {"low": 0.1, "high": 0.9}},
    }
    SearchConfig(
        "digits-small", "0123456789ab", "digits", "Made up.", "attention56", "digits", 0, 2, space, None, 60, 1, 1, None
    ).write(search)
    for _ in range(2):
        assert all(dict(synchronise(driver, uri)).values())
    [experiment] = client.search_experiments(filter_string="name = 'residual-attention/digits'")
    [parent] = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    assert parent.info.status == status
    trials = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert sorted(run.data.tags["trial.state"] for run in trials) == sorted({"finished", last} - {"running"})


def test_what_has_no_proper_name_is_named_and_everything_else_goes_on(
    uri: str, tmp_path: Path, saved: list[str]
) -> None:
    driver = project(tmp_path)
    one, other = (write_run(tmp_path / "runs", make_spec(name)) for name in ("attention92", "attention128"))
    for folder, file, name in ((one, "provenance.json", "digits"), (other, "config.json", "attention128")):
        path = folder / file
        path.write_text(path.read_text().replace(f'"{name}"', '"a\'b"'))
        (folder / "checksums.json").unlink()
    search = tmp_path / "runs" / "tune" / "a'b\x1b[31m"
    search.mkdir(parents=True)
    (search / "search.json").symlink_to(search / "search.json")
    for profile in ("a'b", "digits"):
        (tmp_path / "reports" / profile).mkdir(parents=True)
        (tmp_path / "reports" / profile / "report.html").write_text("<html>")
    lines = dict(synchronise(driver, uri))
    assert [line for line, well in lines.items() if well] == ["1 logged models", "report of digits"]
    failed = " ".join(line for line, well in lines.items() if not well)
    for text in (
        f"{one.name}: not taken",
        f"{other.name}: not taken",
        r"search a'b\x1b[31m: not taken: ",
        "report of a'b: not tak",
    ):
        assert text in failed
    assert saved == ["attention56-s1"]


def test_an_export_that_fails_is_told_and_stops_nothing(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("cannot export this")

    monkeypatch.setattr(models, "_save", fail)
    lines = dict(synchronise(project(tmp_path), uri))
    assert lines["0 logged models"]
    assert "its network could not be logged as a model: cannot export this" in caplog.text


def test_everything_is_rebuilt_from_the_files_and_nothing_twice(
    uri: str, client: MlflowClient, tmp_path: Path, saved: list[str]
) -> None:
    driver = project(tmp_path)
    page = tmp_path / "reports" / "digits" / "report.html"
    (page.parent / "figures").mkdir(parents=True)
    page.write_text("<html>")
    (page.parent / "figures" / "curves.svg").write_text("<svg>")
    assert dict(synchronise(driver, uri)) == {
        "4 runs (4 of them new), 24 points that were missing": True,
        "1 logged models": True,
        "report of digits": True,
    }
    assert "4 runs (0 of them new), 0 points that were missing" in dict(synchronise(driver, uri))
    [experiment] = client.search_experiments(filter_string="name = 'residual-attention/digits'")
    [report] = client.search_runs([experiment.experiment_id], "tags.kind = 'report'")
    assert {file.path for file in client.list_artifacts(report.info.run_id)} == {"report.html", "figures"}
    assert [file.path for file in client.list_artifacts(report.info.run_id, "figures")] == ["figures/curves.svg"]


def test_a_report_makes_no_store_where_no_run_was_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "reports" / "digits").mkdir(parents=True)
    log_report(project(tmp_path).plan, tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_report_is_logged_beside_its_runs(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    page = tmp_path / "reports" / "digits" / "report.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Report")
    log_report(project(tmp_path).plan, tmp_path)
    [experiment] = client.search_experiments(filter_string="name = 'residual-attention/digits'")
    [report] = client.search_runs([experiment.experiment_id], "tags.kind = 'report'")
    assert [file.path for file in client.list_artifacts(report.info.run_id)] == ["report.md"]
