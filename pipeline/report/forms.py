"""Numbers as text, tables as CSV (a line for each number) and as LaTeX (booktabs), claims as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.report.claims import Verdict
from pipeline.report.evidence import MARKS
from pipeline.report.tables import Cell, Table
from pipeline.settings.paper import COUNTED, Printed
from pipeline.utils.files import csv_text
from pipeline.utils.statistics import Estimate

_DECIMALS = {"test_error": 2, "top5_error": 2, "parameters": 2, "multiply_adds": 2, "depth": 0}
PENDING = "pending"
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def number(value: float | None, quantity: str = "test_error", sign: bool = False) -> str:
    """A value of a quantity; a dash for None. Ratios of responses get three significant digits."""
    if value is None or math.isnan(value):
        return DASH
    plus = "+" if sign else ""
    if quantity == "response":
        decimals = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return _minus(f"{value:{plus}.{min(decimals, 6)}f}")
    return _minus(f"{value:{plus}.{_DECIMALS.get(quantity, 2)}f}")


def printed(value: float | None, quantity: str = "test_error") -> str:
    """A number of the paper with the digits that it has there; one computed from several as others are."""
    if value is None:
        return DASH
    if isinstance(value, Printed):
        return _minus(str(value))
    if quantity.endswith("_error") or quantity == "slope":
        return _minus(f"{value:.2f}")
    return f"{value:g}" if quantity in ("depth", "response") else f"{value:.1f}"


def interval(estimate: Estimate | None, quantity: str = "test_error") -> str:
    """`[low, high]`, or nothing where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, quantity)}, {number(estimate.high, quantity)}]"


def thousands(value: float) -> str:
    """An integer with separators."""
    return f"{int(value):,}"


def _minus(text: str) -> str:
    """A typographic minus sign, and no negative zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", MINUS)


CSV_HEADER = (
    "table", "row", "column", "quantity", "printed", "measured", "standard_deviation", "interval_low", "interval_high",
    "binomial_standard_error", "difference", "difference_low", "difference_high", "seeds", "planned_seeds", "dataset",
    "profile", "iterations", "marks",
)  # fmt: skip


CLAIM_HEADER = (
    "claim", "table", "kind", "printed", "effect", "unit", "interval_low", "interval_high", "method", "p", "p_adjusted",
    "n", "seeds_in_the_papers_direction", "seeds_compared", "verdict", "reason", "seeds_needed", "marks",
)  # fmt: skip


def rounded_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV in which floats have at most six digits after the point; NaN is an empty cell, as None is."""
    return csv_text(header, ([_rounded(cell) for cell in row] for row in rows))


def _rounded(cell: Any) -> Any:
    if not isinstance(cell, float):
        return cell
    return None if math.isnan(cell) else round(cell, 6)


def table_csv(table: Table) -> str:
    """One line for each cell of the table; a pending one has no `measured`."""
    return rounded_csv(CSV_HEADER, [_csv_row(cell) for cell in table.cells])


def _csv_row(cell: Cell) -> list[Any]:
    measured, away, sample = cell.measured, cell.difference, cell.sample
    runs = sample.runs if sample else ()

    def joined(values: Iterable[Any]) -> str:
        return " ".join(sorted({str(value) for value in values}))

    return [
        *cell.id.split("/"),
        cell.quantity,
        cell.printed,
        *((measured.value, measured.spread, measured.low, measured.high) if measured else (None,) * 4),
        sample.binomial_error if sample else None,
        *((away.value, away.low, away.high) if away else (None,) * 3),
        len(sample.values) if sample else None,
        sample.planned if sample else None,
        joined(run.dataset for run in runs),
        joined(run.profile or "" for run in runs),
        joined(run.iterations for run in runs),
        "; ".join(cell.marks),
    ]


def claims_csv(verdicts: Sequence[Verdict]) -> str:
    """One line for each claim; `n` is the smaller number of seeds of its arms."""
    rows: list[list[Any]] = []
    for verdict in verdicts:
        claim, effect = verdict.claim, verdict.effect
        measured = (effect.low, effect.high, effect.method, effect.p) if effect else (None,) * 4
        value = effect.value if effect else None
        seeds = (verdict.n, *(verdict.agreeing or (None, None)))
        outcome = (verdict.text, verdict.reason, verdict.seeds_needed, "; ".join(verdict.marks))
        start = (claim.id, claim.table, claim.kind, verdict.printed, value, verdict.unit)
        rows.append([*start, *measured, verdict.adjusted_p, *seeds, *outcome])
    return rounded_csv(CLAIM_HEADER, rows)


def measured_text(cell: Cell) -> str:
    """The measured number: mean, half of its interval, marks; `pending` where there is none."""
    measured = cell.measured
    if measured is None:
        return PENDING
    text = number(measured.value, cell.quantity)
    if measured.half_width is not None:
        text += f" ± {number(measured.half_width, cell.quantity)}"
    return text + "".join(f" {MARKS[mark]}" for mark in cell.marks)


def seeds_text(cell: Cell) -> str:
    """How many seeds stand behind a number and how they spread; for one seed, the error of its test set."""
    sample, measured = cell.sample, cell.measured
    if sample is None:
        return ""
    if measured is None:
        return sample.seeds
    if sample.binomial_error is not None:
        return f"{sample.seeds}, s.e. {number(sample.binomial_error)}"
    spread = "" if measured.spread is None else f", s.d. {number(measured.spread, cell.quantity)}"
    return sample.seeds + spread


def difference_text(cell: Cell) -> str:
    """Measured less printed with its interval; of counts, the relative difference; a dash where none makes sense."""
    away = cell.difference
    if away is None:
        return DASH
    if cell.sample is None and cell.printed:
        return f"{number(100 * away.value / cell.printed, sign=True)} %"
    return f"{number(away.value, cell.quantity, sign=True)} {interval(away, cell.quantity)}".strip()


def table_latex(table: Table, statement: str) -> str:
    """A booktabs table whose caption says on what the measured numbers stand."""
    import pandas as pd

    heads = [_latex_heads(table, index) for index in range(len(table.columns))]
    columns = [("", _escape(table.paper.row_header))]
    for column, head in zip(table.columns, heads, strict=True):
        columns += [(_escape(column.label), name) for name in head]
    rows = []
    for row in table.rows:
        texts = [_latex_text(cell, name) for cell, head in zip(row.cells, heads, strict=True) for name in head]
        rows.append([_escape(text) for text in (row.label, *texts)])
    caption = f"{table.paper.name}. {table.paper.title}. {table.basis} {_latex_key(table)}{statement}".strip()
    latex = (
        pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))
        .style.hide(axis="index")
        .to_latex(
            hrules=True,
            column_format="l" + "".join("l" if name == "seeds" else "r" for _, name in columns[1:]),
            multicol_align="c",
            position_float="centering",
            caption=_escape(caption),
            label=f"tab:{table.paper.id}",
        )
    )
    size = "\\small" if len(columns) <= _SMALL_COLUMNS else "\\scriptsize\\setlength{\\tabcolsep}{3pt}"
    begin = "\\begin{tabular}"
    return "% needs \\usepackage{booktabs}\n" + latex.replace(begin, f"{size}\n{begin}", 1)


def _latex_key(table: Table) -> str:
    """What the signs of a table mean."""
    cells = [cell for cell in table.cells if cell.measured is not None]
    key = [f"{MARKS[mark]} {mark}. " for mark in dict.fromkeys(mark for cell in cells for mark in cell.marks)]
    if any(cell.sample is not None for cell in cells):
        key.insert(0, "± half of the 95 % interval over seeds; s.d. over seeds; s.e. binomial, of the test set. ")
    return "".join(key)


def _latex_heads(table: Table, index: int) -> list[str]:
    """What stands under the label of a column."""
    counted, is_printed = table.columns[index].quantity in COUNTED, table.printed_columns[index]
    heads = ["printed"] if is_printed else []
    heads.append("counted" if counted else "measured")
    if is_printed and table.compares:
        heads.append("difference")
    return heads if counted else [*heads, "seeds"]


def _latex_text(cell: Cell, head: str) -> str:
    if head == "printed":
        return printed(cell.printed, cell.quantity)
    if head == "difference":
        return difference_text(cell)
    if head == "seeds":
        return seeds_text(cell).replace(" seeds", "").replace(" seed", "")
    return measured_text(cell)


_SMALL_COLUMNS = 7
"""Up to so many columns a table fits a page in small print."""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", MINUS: r"$-$", DASH: "--",
    "‖": r"$\Vert$", "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "⁶": "$^6$", "⁹": "$^9$",
}  # fmt: skip


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
