"""Coverage of the paper: every printed cell and claim stands at the level that its runs have."""

from __future__ import annotations

from typing import Any

from pipeline.report.build import build_index
from pipeline.report.coverage import COUNT, FULL, IMPLEMENTED, SHORT, STAND_IN, cells, claims, shares
from pipeline.report.summaries import Summary
from pipeline.settings.paper import load_paper
from tests.unit.report.test_build import build


def summary(world: Any, *arguments: Any, **options: Any) -> Summary:
    plan = world.plan(*arguments, **options)
    world.train(plan)
    build(world, plan)
    return Summary.read(world.root / "reports" / plan.profile / "summary.json")


def test_every_printed_cell_and_claim_is_there_once() -> None:
    paper = load_paper()
    covered = cells(paper, [])
    assert {entry.level for entry in covered} == {IMPLEMENTED}
    assert len({entry.name for entry in covered}) == len(covered) > 80
    assert len(claims(paper, [])) == len(paper.claims)


def test_the_report_nearest_to_the_paper_counts(world: Any) -> None:
    few = {"attention56": 5.5, "attention56-nal": 5.9}
    full = summary(world, "cifar10", seeds=3, dataset="cifar10", full=True, experiments=few)
    short = summary(world, "short", dataset="cifar10", experiments=few)
    digits = summary(world, "digits", experiments=few)

    def level(*summaries: Summary) -> str:
        return {entry.name: entry.level for entry in cells(load_paper(), summaries)}["table3/attention56/nal"]

    assert level(full, short, digits) == FULL
    assert level(short, digits) == SHORT
    assert level(digits) == STAND_IN
    found = {entry.name: entry for entry in claims(load_paper(), [full, digits])}["claims/arl-beats-nal-56"]
    assert found.level == FULL and "n = 3" in found.basis


def test_shares_add_up_to_all_cells(world: Any) -> None:
    covered = cells(load_paper(), [summary(world)])
    counted = [int(share.split()[0]) for share in shares(covered).values()]
    assert sum(counted) == len(covered)
    assert shares(covered)[COUNT].endswith("%)")


def test_the_page_is_written_beside_the_index(world: Any) -> None:
    summary(world, experiments={"attention56": 5.5})
    build_index(world.root / "reports")
    text = (world.root / "reports/coverage.md").read_text()
    assert "`table3/attention56/arl`" in text and "stand-in data" in text and "`claims/noise-slope`" in text
