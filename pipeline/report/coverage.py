"""Coverage: for every cell and claim of the paper, what this project has run for it, and how near to the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.forms import DASH, number, printed
from pipeline.report.summaries import Summary
from pipeline.settings.paper import COUNTED, Paper, PaperCell

FULL = "the paper's data and protocol"
SHORT = "the paper's data, another schedule or protocol"
STAND_IN = "stand-in data"
COUNT = "counted, needs no training"
IMPLEMENTED = "implemented, not run"
LEVELS = (FULL, COUNT, SHORT, STAND_IN, IMPLEMENTED)


@dataclass(frozen=True)
class Coverage:
    """One cell or claim: what the paper prints, at which level it is covered, on what, and the result."""

    name: str
    what: str
    printed: str
    level: str
    basis: str
    result: str


def cells(paper: Paper, summaries: Sequence[Summary]) -> list[Coverage]:
    """Return the coverage of every printed cell, from the report that is nearest to the paper.

    Args:
        paper: the paper's tables.
        summaries: those of the reports, the nearest to the paper first.
    """
    found = []
    for table in paper.tables:
        for row in table.rows:
            for column in table.columns:
                cell = row.cells.get(column.id)
                if cell is None or cell.printed is None:
                    continue
                name, quantity = f"{table.id}/{row.id}/{column.id}", column.quantity
                level, basis, result = _measured(name, quantity, cell, summaries, table.id)
                what = f"{table.name}, {row.label}, {column.label}"
                found.append(Coverage(name, what, printed(cell.printed, quantity), level, basis, result))
    return found


def _measured(
    name: str, quantity: str, cell: PaperCell, summaries: Sequence[Summary], table: str
) -> tuple[str, str, str]:
    """Level, basis and result of a cell by the first report that has measured it."""
    for summary in summaries:
        entry = summary.tables.get(table, {}).get(name)
        if entry is None or entry.measured is None:
            continue
        if quantity in COUNTED:
            return COUNT, "", number(entry.measured, quantity)
        if not entry.basis:  # says not on what it stands
            continue
        own = f"profile {summary.profile}," in entry.basis
        seeds = len(entry.seeds)
        basis = f"{entry.basis}, {seeds} seed{'' if seeds == 1 else 's'}"
        return _level(summary) if own else FULL, basis, number(entry.measured, quantity)
    return IMPLEMENTED, cell.experiment or cell.network or "", DASH


def claims(paper: Paper, summaries: Sequence[Summary]) -> list[Coverage]:
    """Return the coverage of every claim, from the report nearest to the paper that has runs (or counts) for it."""
    found = []
    for claim in paper.claims:
        level, basis, result = IMPLEMENTED, "", "not run"
        for summary in summaries:
            entry = summary.claims.get(claim.id)
            if entry is None or entry.verdict == "not run":
                continue
            level = COUNT if claim.kind == "ratio" else _level(summary)
            basis = "" if claim.kind == "ratio" else f"profile {summary.profile}, n = {entry.n}"
            result = entry.verdict
            break
        found.append(
            Coverage(f"claims/{claim.id}", claim.text, printed(claim.printed, claim.quantity), level, basis, result)
        )
    return found


def _level(summary: Summary) -> str:
    if summary.standin:
        return STAND_IN
    return FULL if summary.reproduction else SHORT


def shares(coverage: Sequence[Coverage]) -> dict[str, str]:
    """Return how many of the entries are at each level, with their share in percent."""
    counts = Counter(entry.level for entry in coverage)
    return {
        level: f"{counts[level]} of {len(coverage)} ({100 * counts[level] / len(coverage):.0f} %)" for level in LEVELS
    }
