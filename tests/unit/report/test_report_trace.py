"""The way back from a number."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.report import trace


def test_a_number_is_walked_back_to_run_commit_data_command_and_hardware(world: Any) -> None:
    plan = world.plan(experiments={"attention92-noise30": 5.8})
    folder = world.stored(plan["runs"]["attention92-noise30-s0"])
    text = trace(plan, world.sources, "table5/noise30/attention92")
    for part in (
        "5.79",
        plan["identity"]["attention92-noise30-s0"],
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
        plan["labels"]["statement"],
    ):
        assert part in text, part


def test_a_pending_number_says_so(world: Any) -> None:
    assert "pending" in trace(world.plan(), world.sources, "table3/attention92/nal")


def test_a_run_without_provenance_says_so(world: Any) -> None:
    plan = world.plan(experiments={"attention92": 5.0})
    world.train(plan)
    assert "none in the sources" in trace(plan, world.sources, "table3/attention92/arl")


def test_a_marked_number_says_why(world: Any) -> None:
    plan = world.plan(experiments={"attention92": 5.0})
    world.result("digits", plan["runs"]["attention92-s0"] | {"numerics": 1, "identity": "0" * 12})
    assert "older training code" in trace(plan, world.sources, "table3/attention92/arl")


@pytest.mark.parametrize(
    ("cell", "allowed"),
    [
        ("table3/attention92/mixed", "table3/attention92/arl, table3/attention92/nal"),
        ("table3/attention93/nal", "table3/attention164/nal"),
        ("nonsense", "table1/<row>/<column>"),
        ("", "figure4/<row>/<column>"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line_with_what_is_allowed(world: Any, cell: str, allowed: str) -> None:
    with pytest.raises(UserError) as error:
        trace(world.plan(), world.sources, cell)
    assert allowed in str(error.value)
    assert "\n" not in str(error.value)
