"""A table as CSV (one line a number, for machines) and as LaTeX (booktabs, for papers)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.report.evidence import MARKS
from pipeline.report.numbers import DASH, MINUS, PENDING, interval, number, printed
from pipeline.report.paper import COUNTED
from pipeline.report.tables import Cell, Table

CSV_HEADER = (
    "table", "row", "column", "quantity", "printed", "measured", "standard_deviation", "interval_low", "interval_high",
    "binomial_standard_error", "difference", "difference_low", "difference_high", "seeds", "planned_seeds", "dataset",
    "profile", "iterations", "marks",
)  # fmt: skip


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with LF line ends; None is an empty cell, floats have at most six digits after the point."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([round(cell, 6) if isinstance(cell, float) else cell for cell in row] for row in rows)
    return buffer.getvalue()


def table_csv(table: Table) -> str:
    """One line for each cell of the table; a pending one has no `measured`."""
    return csv_text(CSV_HEADER, [_csv_row(cell) for cell in table.cells])


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


def measured_text(cell: Cell) -> str:
    """The measured number: mean, half of its interval, marks; `pending` for a hole."""
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
    header = [_escape(table.paper.row_header)]
    for column in table.columns:
        counted = column.quantity in COUNTED
        header += [
            f"{_escape(column.label)}, printed",
            "counted" if counted else "measured",
            "" if counted else "seeds",
        ]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_escape(f'{table.paper.name}. {table.paper.title}. {table.basis} {statement}'.strip())}}}",
        f"  \\label{{tab:{table.paper.id}}}",
        f"  \\begin{{tabular}}{{l{'rrl' * len(table.columns)}}}",
        "    \\toprule",
        f"    {' & '.join(header)} \\\\",
        "    \\midrule",
    ]
    for row in table.rows:
        cells = [_escape(row.label)]
        for cell in row.cells:
            cells += [printed(cell.printed, cell.quantity), measured_text(cell), seeds_text(cell)]
        lines.append(f"    {' & '.join([cells[0], *(_escape(text) for text in cells[1:])])} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", MINUS: r"$-$", DASH: "--",
    "†": r"\dag{}", "‡": r"\ddag{}",
}  # fmt: skip


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
