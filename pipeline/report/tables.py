"""The paper's tables, filled with what was measured or counted here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.report.counts import Count, CountsByNetwork
from pipeline.report.evidence import INFERRED, Evidence, Sample
from pipeline.settings.paper import COUNTED, UNITS, PaperCell, PaperColumn, PaperRow, PaperTable
from pipeline.utils.statistics import Estimate, slope


@dataclass(frozen=True)
class Cell:
    """One number of a table: printed, and a measured sample or a count (in the unit of the table)."""

    id: str
    quantity: str
    printed: float | None
    sample: Sample | None = None
    count: Count | None = None
    comparable: bool = False

    @cached_property
    def measured(self) -> Estimate | None:
        """Mean over the seeds, or the count as an estimate without spread."""
        if self.sample is not None:
            return self.sample.estimate
        return None if self.count is None else Estimate(self.count.of(self.quantity) / UNITS[self.quantity], 1)

    @cached_property
    def difference(self) -> Estimate | None:
        """Measured less printed; None where the data are not the paper's, and the numbers cannot be compared."""
        if self.measured is None or self.printed is None or not self.comparable:
            return None
        return self.measured.shifted(self.printed)

    @property
    def marks(self) -> tuple[str, ...]:
        """What is to be said against the runs, or of the network, behind it."""
        if self.sample is not None:
            return self.sample.marks
        return (INFERRED,) if self.count is not None and self.count.reading else ()

    @property
    def where(self) -> str:
        """Data set, profile and iterations of the runs behind the number; empty for a count or a pending cell."""
        if self.sample is None or not self.sample.runs:
            return ""
        parts = {(run.dataset, run.profile, run.iterations) for run in self.sample.runs}
        return "; ".join(
            f"{dataset}, profile {profile or 'unknown'}, {iterations:,} iterations"
            for dataset, profile, iterations in sorted(parts, key=str)
        )


@dataclass(frozen=True)
class Row:
    """A row: its cells in the order of the table's columns; `derived` from the other rows, where the paper has none."""

    id: str
    label: str
    cells: tuple[Cell, ...]
    derived: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper with its measured cells."""

    paper: PaperTable
    columns: tuple[PaperColumn, ...]
    rows: tuple[Row, ...]

    @property
    def cells(self) -> list[Cell]:
        """All cells, row by row."""
        return [cell for row in self.rows for cell in row.cells]

    @cached_property
    def printed_columns(self) -> tuple[bool, ...]:
        """For each column whether the paper has it: data sets that stand in have columns of their own."""
        return tuple(column in self.paper.columns for column in self.columns)

    @cached_property
    def compares(self) -> bool:
        """Whether any of its numbers can be set against a printed one."""
        return any(cell.comparable for cell in self.cells)

    @cached_property
    def is_mixed(self) -> bool:
        """Whether its numbers come from more than one data set, profile or schedule: each then says its own."""
        return len({cell.where for cell in self.cells if cell.where}) > 1

    @property
    def basis(self) -> str:
        """One line: on what data, profile, schedule and seeds the measured numbers stand."""
        samples = [cell.sample for cell in self.cells if cell.sample is not None]
        if not samples:
            return "Counted on the networks of this project; no training is needed."
        done = [sample for sample in samples if sample.values]
        if not done:
            return "Nothing has been trained yet."
        where = sorted({cell.where for cell in self.cells if cell.where})
        fewest, most = min(len(s.values) for s in done), max(len(s.values) for s in done)
        seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
        pending = f"; {len(samples) - len(done)} of {len(samples)} cells pending" if len(done) < len(samples) else ""
        return f"Measured on {' | '.join(where)}; {seeds} a cell{pending}."


def build_tables(evidence: Evidence, counts: CountsByNetwork) -> list[Table]:
    """Every table of the paper, in its order; one of label noise again for each other draw of the noisy labels."""
    tables = []
    for table in evidence.paper.tables:
        tables.append(_table(table, evidence, counts))
        for draw, other in evidence.other_draws.items() if table.noise_levels else ():
            title = f"{table.title}, draw {draw} of the noisy labels"
            tables.append(_table(replace(table, id=f"{table.id}-draw{draw}", title=title), other, counts))
    return tables


def _table(table: PaperTable, evidence: Evidence, counts: CountsByNetwork) -> Table:
    columns = table.columns + _stand_in_columns(table, evidence)
    rows = tuple(
        Row(row.id, row.label, tuple(_cell(table, row, column, evidence, counts) for column in columns))
        for row in table.rows
    )
    if table.noise_levels:
        cells = tuple(_slope(table, column, evidence) for column in columns)
        rows += (Row("slope", "slope (points for 10 % of noise)", cells, derived=True),)
    return Table(table, columns, rows)


def _slope(table: PaperTable, column: PaperColumn, evidence: Evidence) -> Cell:
    """How fast the error of a column rises with label noise; the printed one is that of the printed numbers."""
    cells = table.by_level(column.id)
    sample = evidence.slopes({level: str(cell.experiment) for level, cell in cells.items()})
    printed = slope(list(cells), [cell.printed or 0.0 for cell in cells.values()])
    comparable = evidence.datasets == [table.dataset]
    return Cell(f"{table.id}/slope/{column.id}", "slope", round(printed, 4), sample, comparable=comparable)


def _stand_in_columns(table: PaperTable, evidence: Evidence) -> tuple[PaperColumn, ...]:
    """Columns of Tables 6 and 7 for data sets of the profile that the paper's table has none for.

    The networks must be those of the table: for CIFAR in Table 6, for ImageNet in Table 7.
    """
    if table.scope != "everywhere" or evidence.has_cifar_networks == (table.dataset == "imagenet"):
        return ()
    known = {column.dataset for column in table.columns}
    missing = [dataset for dataset in evidence.datasets if dataset not in known and dataset != "imagenet"]
    if table.dataset != "imagenet":
        return tuple(PaperColumn(d, f"{d} error %, not in the paper", "test_error", d) for d in missing)
    return tuple(
        PaperColumn(f"{d}-{name}", f"{d} {name.replace('top', 'top-')} error %, not in the paper", quantity, d)
        for d in missing
        for name, quantity in (("top1", "test_error"), ("top5", "top5_error"))
    )


def _cell(table: PaperTable, row: PaperRow, column: PaperColumn, evidence: Evidence, counts: CountsByNetwork) -> Cell:
    name = f"{table.id}/{row.id}/{column.id}"
    cell = row.cells.get(column.id)
    if cell is None:
        cell = PaperCell(None, experiment=next(c.experiment for c in row.cells.values() if c.experiment))
    if column.quantity in COUNTED:
        return Cell(name, column.quantity, cell.printed, count=counts.get(str(cell.network)), comparable=True)
    experiment = str(cell.experiment)
    if table.scope == "everywhere":
        dataset = column.dataset or table.dataset
        sample = evidence.sample_of(dataset, experiment, column.quantity)
        return Cell(name, column.quantity, cell.printed, sample, comparable=True)
    if not evidence.has_cifar_networks:
        return Cell(name, column.quantity, cell.printed, Sample(experiment, column.quantity, {}, (), planned=0))
    sample = evidence.sample(experiment, column.quantity, cell.stage)
    comparable = evidence.datasets == [table.dataset]
    return Cell(name, column.quantity, cell.printed, sample, comparable=comparable)
