"""`trace`: the runs behind a number."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.report.trace import mlflow_address, trace
from pipeline.runs.records import Provenance
from pipeline.runs.spec import NUMERICS
from pipeline.utils.errors import UserError


def test_a_number_is_walked_back_to_run_commit_data_command_and_hardware(world: Any) -> None:
    plan = world.plan(experiments={"attention92-noise30": 5.8})
    folder = world.stored(plan.runs["attention92-noise30-s0"].config)
    text = trace(plan, world.sources, "table5/noise30/attention92")
    for part in (
        "5.79",
        plan.runs["attention92-noise30-s0"].identity,
        "a" * 32,
        "f" * 40,
        "c" * 64,
        "d" * 64,
        "python -m pipeline launch",
        "python -m pipeline train attention92-noise30 --seed 0",
        "Synthetic CPU",
        "2026-01-01T00:00:00Z, 12.5 s",
        "torch 2.11",
        str(folder),
        plan.label.statement,
    ):
        assert part in text, part


def test_a_claim_is_walked_back_to_the_runs_of_both_arms(world: Any) -> None:
    plan = world.plan(experiments={"attention92": 5.0, "attention92-nal": 5.4})
    for run in (planned.config for planned in plan.runs.values()):
        world.stored(run)
    text = trace(plan, world.sources, "claims/arl-beats-nal-92")
    for part in (
        "0.36",
        "undecided on stand-in data",
        *(run.identity for run in plan.runs.values()),
        "Synthetic CPU",
        "f" * 40,
    ):
        assert part in text, part
    assert "pending" in trace(plan, world.sources, "claims/noise-slope")


def test_a_run_of_another_profile_is_traced_with_its_marks(world: Any) -> None:
    other = world.plan("cifar10", dataset="cifar10", full=True, experiments={"attention92": 5.0})
    world.result("cifar10", other.runs["attention92-s0"].config | {"numerics": NUMERICS - 1})
    text = trace(world.plan(experiments={"attention56": 5.5}), world.sources, "table6/attention92/cifar10")
    assert re.search(r"profile +cifar10", text) and "older training code" in text


def test_a_link_to_mlflow_leads_to_the_server_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    provenance = Provenance("finished", "digits", mlflow_run_id="abc")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mlflow_address(provenance) == "http://127.0.0.1:5000/#/runs/abc"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert mlflow_address(provenance) == "http://127.0.0.1:5000/#/runs/abc"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org:8080/lab/")
    assert mlflow_address(provenance) == "https://mlflow.example.org:8080/lab/#/runs/abc"
    assert mlflow_address(Provenance("finished", "digits")) is None


def test_a_pending_number_says_so(world: Any) -> None:
    assert "pending" in trace(world.plan(), world.sources, "table3/attention92/nal")


def test_a_run_without_provenance_says_so(world: Any) -> None:
    plan = world.plan(experiments={"attention92": 5.0})
    world.train(plan)
    assert "none in the sources" in trace(plan, world.sources, "table3/attention92/arl")


def test_a_marked_number_says_why(world: Any) -> None:
    plan = world.plan(experiments={"attention92": 5.0})
    world.result("digits", plan.runs["attention92-s0"].config | {"numerics": 1, "identity": "0" * 12})
    assert "older training code" in trace(plan, world.sources, "table3/attention92/arl")


@pytest.mark.parametrize(
    ("cell", "allowed"),
    [
        ("table3/attention92/mixed", "table3/attention92/arl, table3/attention92/nal"),
        ("table3/attention93/nal", "table3/attention164/nal"),
        ("nonsense", "table1/<row>/<column>"),
        ("claims/noise", "claims/noise-slope"),
        ("", "claims/<claim>"),
        ("foo", "did you mean '"),
        ("Table3/Attention92/ARL", "did you mean 'table3/attention92/arl'?"),
        ("", "figure4/<row>/<column>"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line_with_what_is_allowed(world: Any, cell: str, allowed: str) -> None:
    with pytest.raises(UserError) as error:
        trace(world.plan(), world.sources, cell)
    assert allowed in str(error.value)
    assert "did you mean '" in str(error.value)
    assert "\n" not in str(error.value)
