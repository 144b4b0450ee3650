"""The report as a whole: what it writes, that it is honest, and that it never crashes on what lies around."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.report import ReportSummary, build_report


def build(world: Any, plan: dict[str, Any]) -> ReportSummary:
    profile = plan["profile"]
    return build_report(
        plan, world.sources, world.root / "reports" / profile, world.root / "reports/local" / profile, None
    )


def read(world: Any, name: str, profile: str = "digits") -> str:
    return (world.root / "reports" / profile / name).read_text()


def test_the_report_has_all_forms_and_counts_its_runs(world: Any) -> None:
    plan = world.plan()
    world.train(plan)
    summary = build(world, plan)
    assert (summary.runs_done, summary.runs_planned, summary.problems) == (20, 20, ())
    for name in ("report.md", "report.html", "summary.json", "runs.csv", "tables/table3.csv", "tables/table3.tex"):
        assert (world.root / "reports/digits" / name).is_file(), name
    assert "| attention56-s0 |" in read(world, "report.md")
    assert "1,030,362" in read(world, "report.md")


def test_without_any_run_every_number_is_pending(world: Any) -> None:
    build(world, world.plan())
    content = json.loads(read(world, "summary.json"))
    assert content["runs"] == {"done": 0, "planned": 20}
    assert all(cell["measured"] is None for table in content["tables"].values() for cell in table.values())
    assert {claim["verdict"] for claim in content["claims"].values()} == {"not run"}
    assert "pending" in read(world, "report.md")


def test_equal_input_gives_equal_bytes_and_a_second_build_touches_nothing(world: Any) -> None:
    plan = world.plan()
    world.train(plan)
    first = build(world, plan)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first.changed}
    second = build(world, plan)
    assert second.changed == ()
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first.changed}


def test_the_page_opens_with_the_plans_statement(world: Any) -> None:
    plan = world.plan()
    world.train(plan)
    build(world, plan)
    statement = plan["labels"]["statement"]
    opening = read(world, "report.md").split("##")[0]
    assert statement in opening
    assert statement in read(world, "report.html").split("<h2")[0]


def test_the_markdown_links_only_to_files_that_are_there(world: Any) -> None:
    plan = world.plan()
    world.train(plan)
    build(world, plan)
    folder = world.root / "reports/digits"
    for target in re.findall(r"\]\(([^)#]+)\)", read(world, "report.md")):
        assert (folder / target).is_file(), target


def test_importing_the_report_loads_no_heavy_framework() -> None:
    code = "import sys, pipeline.report; print(sorted({'torch', 'ray', 'mlflow', 'dvc'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "[]"
