"""The section "Against ResNet-200": sizes, measured times and costs, and the paper's own arithmetic done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pipeline.benchmark.table import Speed
from pipeline.report.counts import CountsByNetwork
from pipeline.report.evidence import Evidence
from pipeline.report.forms import DASH, MINUS, PENDING, number, printed, rounded_csv
from pipeline.report.speed import PAIR, Cost, Recipe, Times, costs_csv, pair_times, times_csv, training_costs
from pipeline.settings.paper import COUNTED, UNITS, PaperCell, Printed, load_paper

ROWS = ("attention92", "preresnet200")
"""Experiments of both networks; their errors are those on ImageNet."""

TIME_CLAIM = "Attention-92 trains in nearly half of the time of ResNet-200."


@dataclass(frozen=True)
class Statement:
    """What the paper's text computes from two of its numbers; see paper.yaml."""

    text: str
    kind: Literal["share", "more", "less"]
    stated: float
    quantity: str
    first: PaperCell
    second: PaperCell
    dataset: str = "imagenet"

    def compute(self, first: float, second: float) -> float:
        """The statement's number from its two."""
        if self.kind == "less":
            return second - first
        return 100 * (first / second - (1 if self.kind == "more" else 0))

    @property
    def unit(self) -> str:
        """Unit of the difference."""
        return "points" if self.kind == "less" else "%"

    def write(self, first: str, second: str, value: float) -> str:
        """The arithmetic as text, such as "92 / 200 = 46.0 %"."""
        if self.kind == "less":
            return f"{second} {MINUS} {first} = {value:.2f} points"
        return f"{first} / {second} {f'{MINUS} 1 ' if self.kind == 'more' else ''}= {value:.1f} %"


@dataclass(frozen=True)
class Checked:
    """A statement with its arithmetic done again: on the paper's numbers, and on those counted or measured here."""

    text: str
    stated: str
    arithmetic: str
    found: str
    here: str

    @property
    def holds(self) -> bool | None:
        """Whether the paper's numbers give what its text says; None where it prints no numbers."""
        return self.found == self.stated if self.found else None

    @property
    def verdict(self) -> str:
        """The same as text, with what the paper's numbers do give."""
        if self.holds is None:
            return "cannot be checked"
        return "as stated" if self.holds else f"gives {self.found}, not {self.stated}"


Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Size:
    """One quantity of Attention-92 and of ResNet-200, in the paper's unit: printed and here, or None."""

    label: str
    quantity: str
    printed: Pair
    here: Pair

    @property
    def texts(self) -> tuple[str, ...]:
        """Printed and here, each with Attention-92's in percent of ResNet-200's."""
        stated = (printed(self.printed[0], self.quantity), printed(self.printed[1], self.quantity))
        here = (PENDING if value is None else number(value, self.quantity) for value in self.here)
        return (*stated, self._percent_text(self.printed), *here, self._percent_text(self.here))

    def percent(self, pair: Pair) -> float | None:
        """The first in percent of the second; not shown for errors."""
        first, second = pair
        return None if first is None or not second or self.quantity not in COUNTED else 100 * first / second

    def _percent_text(self, pair: Pair) -> str:
        percent = self.percent(pair)
        return DASH if percent is None else f"{percent:.1f} %"


@dataclass(frozen=True)
class Section:
    """Everything that the section shows."""

    sizes: tuple[Size, ...]
    times: tuple[Times, ...]
    recipe: Recipe
    costs: tuple[Cost, ...]
    checked: tuple[Checked, ...]
    others: tuple[Checked, ...]


@cache
def load_section() -> Mapping[str, Any]:
    """Return that section of paper.yaml: `sizes` as mappings, `recipe` as `Recipe`, the other two as `Statement`."""
    content = load_paper().against_resnet200
    statements = {key: [Statement(**entry) for entry in content[key]] for key in ("statements", "others")}
    return {**content, **statements, "recipe": Recipe(**content["recipe"])}


def against_resnet200(evidence: Evidence, counts: CountsByNetwork, speeds: Sequence[Speed]) -> Section:
    """Compare Attention-92 with ResNet-200 from the counts, the runs and the times at hand."""
    content = load_section()
    times = pair_times(speeds)
    return Section(
        sizes=tuple(_size(entry, evidence, counts) for entry in content["sizes"]),
        times=tuple(times),
        recipe=content["recipe"],
        costs=tuple(training_costs(speeds, content["recipe"])),
        checked=(
            *(_check(statement, evidence, counts) for statement in content["statements"]),
            Checked(TIME_CLAIM, "nearly half", "the paper prints no times", "", _training_times(times)),
        ),
        others=tuple(_check(statement, evidence, counts) for statement in content["others"]),
    )


def _size(entry: Mapping[str, Any], evidence: Evidence, counts: CountsByNetwork) -> Size:
    quantity, size = entry["quantity"], entry.get("image_size")
    first, second = (
        _here(PaperCell(None, network=network, experiment=experiment), quantity, "imagenet", evidence, counts, size)
        for network, experiment in zip(PAIR, ROWS, strict=True)
    )
    return Size(entry["label"], quantity, entry["printed"], (first, second))


def _here(
    cell: PaperCell,
    quantity: str,
    dataset: str,
    evidence: Evidence,
    counts: CountsByNetwork,
    image_size: int | None = None,
) -> float | None:
    """The number counted or measured here, in the paper's unit; None while there is none."""
    if quantity in COUNTED:
        count = counts.get(str(cell.network))
        value = None if count is None else count.of(quantity)
        if count is not None and quantity == "multiply_adds" and image_size is not None:
            value = count.multiply_adds_at.get(image_size)
        return None if value is None else value / UNITS[quantity]
    estimate = evidence.sample_of(dataset, str(cell.experiment), quantity).estimate
    return None if estimate is None else estimate.value


def _check(statement: Statement, evidence: Evidence, counts: CountsByNetwork) -> Checked:
    quantity = statement.quantity
    pair = (statement.first, statement.second)
    paper = [cell.printed or Printed(0) for cell in pair]
    value = statement.compute(*paper)
    decimals = len(f"{statement.stated:g}".partition(".")[2])
    here = [_here(cell, quantity, statement.dataset, evidence, counts) for cell in pair]
    ours = PENDING
    if here[0] is not None and here[1] is not None:
        first, second = (number(number_here, quantity) for number_here in here)
        ours = statement.write(first, second, statement.compute(here[0], here[1]))
    return Checked(
        text=statement.text,
        stated=f"{statement.stated:g} {statement.unit}",
        arithmetic=statement.write(printed(paper[0], quantity), printed(paper[1], quantity), value),
        found=f"{round(value, decimals):g} {statement.unit}",
        here=ours,
    )


def _training_times(times: Sequence[Times]) -> str:
    """Attention-92's measured training time in percent of ResNet-200's, for each hardware and image size."""
    found = [
        f"{row.percent:.0f} % at {row.image_size}x{row.image_size} ({row.hardware}, {row.setting})"
        for row in times
        if row.mode == "training" and row.percent is not None
    ]
    return "; ".join(found) or "not measured"


def section_files(section: Section) -> dict[str, str]:
    """The section's tables as CSV, by path in the report's folder."""
    sizes = [
        (row.label, *row.printed, row.percent(row.printed), *row.here, row.percent(row.here)) for row in section.sizes
    ]
    claims = [
        (row.text, row.stated, row.arithmetic, row.verdict, row.here) for row in (*section.checked, *section.others)
    ]
    names = ("attention92", "resnet200", "percent")
    return {
        "tables/resnet200-sizes.csv": rounded_csv(
            ("quantity", *(f"printed_{name}" for name in names), *(f"here_{name}" for name in names)), sizes
        ),
        "tables/resnet200-times.csv": times_csv(section.times),
        "tables/resnet200-cost.csv": costs_csv(section.costs),
        "tables/resnet200-claims.csv": rounded_csv(("claim", "stated", "arithmetic", "verdict", "here"), claims),
    }
