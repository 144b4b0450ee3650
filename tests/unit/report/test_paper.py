"""The paper's numbers as data: that they agree with one another, whatever was typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.forms import printed as printed_text
from pipeline.settings import config
from pipeline.settings.paper import COUNTED, PaperClaim, deviations, load_paper
from pipeline.settings.planning import build_plan

PAPER = load_paper()
ROOT = Path(__file__).parents[3]


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


def test_only_the_papers_own_schedule_is_no_deviation(tmp_path: Path) -> None:
    tree = config.compose("cifar10", [], tmp_path / "params.yaml", ROOT)
    full = build_plan(tree, None).runs["attention56-s0"].config
    assert deviations(full, PAPER) == {}
    shorter = full | {"protocol": full["protocol"] | {"iterations": 16000}}
    assert deviations(shorter, PAPER) == {"iterations": (16000, 160000)}
    digits = build_plan(config.load(ROOT / config.PARAMS), None).runs["attention56-s0"].config
    assert set(deviations(digits, PAPER)) == {"dataset"}


@pytest.mark.parametrize("profile", ["cifar10", "cifar10-large", "cifar100", "cifar100-large", "imagenet"])
def test_the_full_profiles_are_the_papers_experiments(profile: str, tmp_path: Path) -> None:
    tree = config.compose(profile, [], tmp_path / "params.yaml", ROOT)
    for run in build_plan(tree, None).runs.values():
        assert run.experiment in PAPER.protocols[tree.data.name].experiments
        assert deviations(run.config, PAPER) == {}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (["experiments.attention92.test_crop=64"], {"test_crop": (64, 320)}),
        (["crops.train=64"], {"train_crop": (64, 224)}),
        (["crops.colour=0"], {"colour": (0, 0.1)}),
    ],
)
def test_other_crops_are_not_the_papers(changes: list[str], found: dict[str, Any], tmp_path: Path) -> None:
    tree = config.compose("imagenet", changes, tmp_path / "params.yaml", ROOT)
    run = build_plan(tree, None).runs["attention92-s0"].config
    assert deviations(run, PAPER) == found


@pytest.mark.parametrize(("images", "found"), [(50_000, set()), (48_238, set()), (100, {"test_images"})])
def test_imagenets_blacklist_may_be_left_out_and_nothing_more(images: int, found: set[str], tmp_path: Path) -> None:
    tree = config.compose("imagenet", [], tmp_path / "params.yaml", ROOT)
    run = build_plan(tree, None).runs["attention92-s0"].config
    run["data"] |= {"test_images": images, "train_images": 1_281_167}
    assert set(deviations(run, PAPER)) == found


def test_numbers_keep_the_digits_that_they_are_printed_with() -> None:
    cells = {row.id: row.cells for row in PAPER.table("table6").rows}
    assert str(cells["attention452"]["cifar10"].printed) == "3.90" and cells["attention452"]["cifar10"].printed == 3.9
    assert printed_text(PAPER.table("table7").rows[1].cells["top5"].printed, "top5_error") == "5.9"
