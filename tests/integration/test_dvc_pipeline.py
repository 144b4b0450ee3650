"""`dvc repro` in a fresh clone, on a profile that trains for seconds. The quick tests build on each other, in order."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import Clone

pytestmark = pytest.mark.timeout(1200)
RUNS = ("attention56", "attention56-nal", "resnet164-noise30")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(clone: Clone, **experiments: object) -> None:
    path = clone.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["experiments"].update(experiments)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def test_repro_goes_from_nothing_to_a_report(clone: Clone) -> None:
    ran = clone.repro()
    assert ran[:4] == ["fetch@digits", "prepare@digits", "corrupt@digits-30", "plan"]
    assert not [stage for stage in ran if "tune" in stage], "a search runs only when it is asked for"
    for run in RUNS:
        metrics = json.loads((clone.root / "results" / "seconds" / run / "seed0" / "metrics.json").read_text())
        assert metrics["iterations"] == 3
    report = (clone.root / "reports" / "seconds" / "report.md").read_text()
    assert "A test of seconds; these numbers do not reproduce the paper's." in report
    assert (clone.root / "reports" / "seconds" / "report.html").stat().st_size > 10_000


def test_every_run_is_in_mlflow(clone: Clone) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    experiments = client.search_experiments(filter_string="name LIKE 'residual-attention/seconds'")
    found = client.search_runs([e.experiment_id for e in experiments], "tags.identity != ''")
    assert {run.data.tags["experiment"] for run in found} == set(RUNS)
    assert {run.info.status for run in found} == {"FINISHED"}


def test_metrics_params_and_plots_show_the_results_in_120_columns(clone: Clone) -> None:
    metrics = clone.run("dvc", "metrics", "show").stdout
    assert "reports/seconds" in metrics and "ARL56" in metrics
    params = clone.run("dvc", "params", "diff", "--md").stdout
    assert "identity.attention56-s0" in params
    for text in (metrics, params):
        assert max(map(len, text.splitlines())) <= 120
    page = Path(clone.run("dvc", "plots", "show").stdout.strip().removeprefix("file://"))
    assert page == clone.root / "dvc_plots" / "index.html" and "learning-curves" in page.read_text()
    assert "dvc_plots" not in clone.run("git", "status", "--porcelain", "--untracked-files=all").stdout


def test_status_after_a_repro_says_that_all_is_up_to_date(clone: Clone) -> None:
    assert clone.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_a_second_repro_does_nothing(clone: Clone) -> None:
    started = time.monotonic()
    assert clone.repro() == []
    assert time.monotonic() - started < 60  # minutes would mean that something ran


def test_repro_of_a_stage_works_from_a_subfolder(clone: Clone) -> None:
    done = clone.run("sh", "-c", "cd docs && dvc repro ../dvc.yaml:plan && PYTHONPATH=.. python -m pipeline runs list")
    assert "up to date" in done.stdout and "attention56-s0" in done.stdout
    assert not (clone.root / "docs" / "plan.json").exists()


def test_a_changed_experiment_trains_alone(clone: Clone) -> None:
    before = {run: content(clone.root / "results" / "seconds" / run) for run in RUNS}
    edit(clone, **{"attention56-nal": {"network": "cifar_attention56", "options": {"learning": "nal", "t": 1}}})
    ran = clone.repro()
    assert [stage for stage in ran if stage.startswith("train@")] == ["train@seconds-attention56-nal-0"]
    assert not {"fetch@digits", "prepare@digits", "corrupt@digits-30"} & set(ran)
    for run in RUNS:
        same = content(clone.root / "results" / "seconds" / run) == before[run]
        assert same == (run != "attention56-nal"), run
    assert len(list((clone.root / "runs").glob("*-s0-*"))) == 4, "the earlier run stays in the store"


def test_a_setting_that_changes_no_numbers_trains_nothing(clone: Clone) -> None:
    path = clone.root / "params.yaml"
    path.write_text(path.read_text().replace("max_parallel: null", "max_parallel: 1"))
    ran = clone.repro()
    assert "plan" in ran
    assert [stage for stage in ran if stage.startswith("train@")] == []


def test_data_of_another_data_set_run_no_stage_again(clone: Clone) -> None:
    other = clone.root / "data" / "prepared" / "cifar10"
    other.mkdir()
    (other / "mean.npy").touch()
    assert clone.repro() == []


def test_what_is_published_and_the_measured_speed_are_read_by_the_report(clone: Clone) -> None:
    """Each of them alone has the report made again, and trains nothing."""
    for name in ("published/README", "benchmarks/networks/unread.txt", "conf/unread.yaml", "pipeline/benchmark/new.py"):
        path = clone.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("# read\n")
        ran = clone.repro("--dry")
        assert "report@seconds" in ran and not [stage for stage in ran if stage.startswith("train@")], name
        path.unlink()


def test_switching_profiles_and_back_runs_nothing_but_the_plan(clone: Clone) -> None:
    (clone.root / "conf" / "profile" / "other.yaml").write_text(
        (clone.root / "conf" / "profile" / "seconds.yaml").read_text().replace("profile: seconds", "profile: other")
    )
    clone.repro()  # the index of all reports names the new profile
    mine = (clone.root / "params.yaml").read_text()
    clone.run(sys.executable, "-m", "pipeline", "compose", "other")
    clone.repro("plan")
    (clone.root / "params.yaml").write_text(mine)
    assert [stage for stage in clone.repro() if stage not in ("plan", "launch")] == []


def test_a_clone_whose_runs_are_all_published_trains_nothing_and_loses_nothing(clone: Clone) -> None:
    clone.run(sys.executable, "-m", "pipeline", "runs", "publish", "*")
    clone.run(sys.executable, "-m", "pipeline", "report")  # whose numbers lead to what is published now
    published, results = content(clone.root / "published"), content(clone.root / "results" / "seconds")
    assert {len(Path(name).parts) for name in published} == {3}, "something else than <profile>/<run>/<file>"
    report = content(clone.root / "reports" / "seconds")
    for name in (".dvc/cache", ".dvc/tmp", "runs", "results", "data/raw", "data/prepared", "data/noisy/digits"):
        shutil.rmtree(clone.root / name)
    (clone.root / "plan.json").unlink()
    ran = clone.repro()
    assert sorted(stage for stage in ran if stage.startswith("train@")) == [f"train@seconds-{run}-0" for run in RUNS]
    assert list((clone.root / "runs").glob("*-s0-*")) == [], "something was trained"
    assert content(clone.root / "published") == published
    assert content(clone.root / "results" / "seconds") == results
    assert content(clone.root / "reports" / "seconds") == report


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_fails_its_own_stage_alone(clone: Clone) -> None:
    path = clone.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["experiments"] = {"wild": {"network": "cifar_attention56", "options": {"p": 2}}}
    tree["protocol"]["learning_rate"] = 1e30
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    done = clone.run("dvc", "repro", "launch", check=False)
    assert done.returncode == 0, done.stderr
    assert "wild-s0: the loss is not finite" in done.stdout + done.stderr
    assert clone.run("dvc", "repro", "-s", "train@seconds-wild-0", check=False).returncode != 0

    tree["protocol"]["learning_rate"] = 0.1
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    edit(clone, tame={"network": "cifar_attention56", "options": {"r": 2}})
    clone.run(sys.executable, "-m", "pipeline", "plan")
    identity = json.loads((clone.root / "plan.json").read_text())["identity"]
    damaged = clone.root / "runs" / f"wild-s0-{identity['wild-s0']}" / "provenance.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    done = clone.run(sys.executable, "-m", "pipeline", "launch", check=False)
    assert done.returncode == 1, done.stderr
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert last.startswith(f"failed: wild-s0: {damaged}: not valid JSON") and "log.txt" not in last  # it never began
    assert (clone.root / "runs" / f"tame-s0-{identity['tame-s0']}" / "metrics.json").exists()
