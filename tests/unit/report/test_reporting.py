"""The report as a command: that it works at any time, in a fresh clone too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.reporting import find_plan, trace_number, write_report
from pipeline.runs.run_store import RunStore
from pipeline.utils.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the report reads of a fresh clone: the settings; no plan, no data, no run."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def test_in_a_fresh_clone_every_number_is_pending(clone: Path) -> None:
    assert "digits: 0 of 20 runs" in write_report(None, clone)
    summary = json.loads((clone / "reports/digits/summary.json").read_text())
    assert summary["problems"] == [] and summary["reproduction"] is False
    index = (clone / "reports/index.md").read_text()
    assert "- digits: " in index and "- cifar10: " in index


def test_a_number_can_be_traced_without_a_plan(clone: Path) -> None:
    assert "pending" in trace_number("table3/attention92/nal", None, clone)


def test_a_plan_without_data_says_all_but_what_the_data_say(clone: Path) -> None:
    plan = find_plan(None, clone)
    run = plan.runs["attention92-noise30-s0"].config
    assert plan.runs["attention92-noise30-s0"].identity is None
    assert run["data"] == {"dataset": "digits", "noise": 30}
    assert run["protocol"]["milestones"] == [81, 113]
    assert run["network"] == {"name": "cifar_attention92", "options": {}}


def test_the_plan_that_is_there_comes_first(clone: Path) -> None:
    plan = find_plan(None, clone)
    replace(plan, store="elsewhere").write(clone / "plan.json")
    assert find_plan("digits", clone) == replace(plan, store="elsewhere")


def test_another_profile_is_composed(clone: Path) -> None:
    plan = find_plan("cifar100", clone)
    assert (plan.profile, plan.label.schedule) == ("cifar100", "full")


def test_an_unknown_profile_is_refused_in_one_line(clone: Path) -> None:
    with pytest.raises(UserError, match="must be one of cifar10, ") as error:
        find_plan("cifar1000", clone)
    assert "\n" not in str(error.value)


def planned(world: Any, clone: Path, store: str) -> dict[str, Any]:
    """A plan of one run in a clone whose run store is behind a URL."""
    plan = replace(world.plan(experiments={"attention92-nal": 5.4}), store=store)
    plan.write(clone / "plan.json")
    return plan.runs["attention92-nal-s0"].config  # type: ignore[no-any-return]


def test_a_fresh_checkout_reports_and_traces_what_an_object_store_has(
    world: Any, clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = RunStore("memory://laboratory/finished")
    run = planned(world, clone, store.url)
    elsewhere = world.stored(run).rename(tmp_path_factory.mktemp("elsewhere") / "run")
    store.push(f"attention92-nal-s0-{run['identity']}", elsewhere, {})
    text = trace_number("table3/attention92/nal", None, clone)
    assert "pending" not in text and run["identity"] in text and "Synthetic CPU" in text
    shutil.rmtree(clone / "runs")
    assert "digits: 1 of 1 runs" in write_report(None, clone)


def test_a_report_with_fewer_runs_does_not_replace_the_one_that_is_there(
    world: Any, clone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.result("digits", planned(world, clone, "runs"))
    assert "digits: 1 of 1 runs" in write_report(None, clone)
    assert not caplog.messages
    committed = (clone / "reports/digits/report.md").read_bytes()
    shutil.rmtree(clone / "results")
    assert "digits: 0 of 1 runs" in write_report(None, clone)
    (warning,) = caplog.messages
    assert "reports/digits has 1 runs" in warning and "reports/local/digits/incomplete" in warning
    assert (clone / "reports/digits/report.md").read_bytes() == committed
    assert (clone / "reports/local/digits/incomplete/report.html").is_file()
    write_report(None, clone, replace=True)
    assert (clone / "reports/digits/report.md").read_bytes() != committed


def test_a_store_that_does_not_answer_is_one_warning_and_no_error(
    world: Any, clone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = planned(world, clone, "nosuch://bucket/runs")
    world.result("digits", run)
    assert "digits: 1 of 1 runs" in write_report(None, clone)
    (warning,) = caplog.messages
    assert warning.startswith("store = 'nosuch://bucket/runs': ") and "\n" not in warning
