"""The paper's numbers as data: that they agree with one another, whatever was typed."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.report.paper import COUNTED, PaperClaim, deviations, load_paper

PAPER = load_paper()


def printed(experiment: str, quantity: str, table: str, dataset: str | None, stage: int | None) -> float:
    """The printed number of an experiment in a table."""
    content = PAPER.table(table)
    for row in content.rows:
        for column in content.columns:
            cell = row.cells[column.id]
            wanted = column.quantity == quantity and dataset in (None, column.dataset)
            if wanted and cell.experiment == experiment and cell.stage == stage and cell.printed is not None:
                return cell.printed
    raise AssertionError(f"{experiment} is not in {table}")


@pytest.mark.parametrize("claim", [c for c in PAPER.claims if c.kind == "lower"], ids=lambda c: c.id)
def test_the_printed_effect_of_a_claim_is_the_difference_of_its_tables_numbers(claim: PaperClaim) -> None:
    arms = [
        printed(arm, claim.quantity, claim.table, claim.dataset, claim.stage) for arm in (claim.lower, claim.higher)
    ]
    assert claim.printed == pytest.approx(arms[1] - arms[0])
    assert claim.printed is not None and claim.printed > 0


@pytest.mark.parametrize("claim", [c for c in PAPER.claims if c.kind == "value"], ids=lambda c: c.id)
def test_the_printed_value_of_a_claim_stands_in_its_table(claim: PaperClaim) -> None:
    assert claim.printed == printed(str(claim.experiment), claim.quantity, claim.table, claim.dataset, None)


def test_ids_are_unique_and_every_row_fills_every_column() -> None:
    assert len({claim.id for claim in PAPER.claims}) == len(PAPER.claims)
    for table in PAPER.tables:
        assert len({row.id for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert set(row.cells) == {column.id for column in table.columns}, (table.id, row.id)
            for column in table.columns:
                cell = row.cells[column.id]
                assert cell.network if column.quantity in COUNTED else cell.experiment, (table.id, row.id)


def test_the_tables_are_named_as_in_the_paper() -> None:
    assert [table.name for table in PAPER.tables] == [*(f"Table {i}" for i in range(1, 8)), "Figure 4"]


def test_only_the_papers_own_schedule_is_no_deviation(world: Any) -> None:
    full = next(iter(world.plan(dataset="cifar10", full=True)["runs"].values()))
    assert deviations(full, PAPER) == {}
    shorter = full | {"protocol": full["protocol"] | {"iterations": 16000}}
    assert deviations(shorter, PAPER) == {"iterations": (16000, 160000)}
    digits = next(iter(world.plan()["runs"].values()))
    assert set(deviations(digits, PAPER)) == {"dataset"}
