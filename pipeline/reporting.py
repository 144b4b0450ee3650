"""Where the report finds its runs, and where its pages go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import plan as plans
from pipeline.errors import UserError
from pipeline.runs import PUBLISHED, RESULTS, store_folder

REPORTS = Path("reports")


def find_plan(profile: str | None, root: Path) -> dict[str, Any]:
    """The plan of a profile: the current one, or the one that its published runs were made from."""
    current = root / plans.PLAN
    if current.exists():
        plan = plans.read_plan(current)
        if profile in (None, plan["profile"]):
            return plan
    if profile is None:
        return plans.read_plan(current)  # says what to type
    published = root / PUBLISHED / profile / plans.PLAN
    if not published.exists():
        raise UserError(
            f"--profile {profile!r}: neither the current plan nor published; `python -m pipeline compose {profile}`"
            " and `python -m pipeline plan` make it current"
        )
    return plans.read_plan(published)


def _sources(plan: dict[str, Any], root: Path) -> list[Path]:
    """Where runs may lie, the richest first: the store has what a run ran on, results/ has only its numbers."""
    return [store_folder(plan["execution"]["store"], root), root / PUBLISHED, root / RESULTS]


def write_report(profile: str | None, root: Path) -> str:
    """Write the report of a profile, and the index of all; what was written, in words."""
    from pipeline.report import build_index, build_report

    plan = find_plan(profile, root)
    name, reports = plan["profile"], root / REPORTS
    summary = build_report(
        plan,
        _sources(plan, root),
        out=reports / name,
        local=reports / "local" / name,
        counts=reports / "counts",
        data=root / "data" / "noisy",
        margin=plan["report"]["equivalence_margin"],
    )
    build_index(reports)
    return str(summary)


def trace_cell(cell: str, root: Path) -> str:
    """Everything that is known of a number of the report."""
    from pipeline.report import trace

    plan = find_plan(None, root)
    return trace(plan, _sources(plan, root), cell, root / REPORTS / "counts")
