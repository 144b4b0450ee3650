"""The paper's numbers and claims, read from `paper.yaml` (all of arXiv:1704.06904v1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Scope = Literal["profile", "everywhere", "counts"]
Arm = str | Mapping[int, str] | None
ClaimKind = Literal["lower", "slope", "value", "ratio"]

COUNTED = ("parameters", "multiply_adds", "depth")
SIZES = ("image_size", "train_images", "test_images")
"""Keys of a protocol that are found in a run's data."""
UNITS = {"parameters": 1e6, "multiply_adds": 1e9, "depth": 1.0}


@dataclass(frozen=True)
class PaperColumn:
    """A column of a table; `dataset` is set where it differs from column to column (Table 6)."""

    id: str
    label: str
    quantity: str
    dataset: str | None = None


@dataclass(frozen=True)
class PaperCell:
    """A printed number (None where the paper prints a dash) and what measures or counts it here."""

    printed: float | None
    experiment: str | None = None
    network: str | None = None
    stage: int | None = None


@dataclass(frozen=True)
class PaperRow:
    """A row of a table: its cells by column."""

    id: str
    label: str
    cells: Mapping[str, PaperCell]


@dataclass(frozen=True)
class PaperTable:
    """A table (or Figure 4 as a table) of the paper.

    `noise_levels` are its rows by label noise in percent; such a table gets a row of slopes.
    """

    id: str
    title: str
    row_header: str
    scope: Scope
    dataset: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    note: str = ""
    noise_levels: Mapping[int, str] | None = None

    def by_level(self, column: str) -> dict[int, PaperCell]:
        """The cells of a column by label noise in percent; empty for a table without noise."""
        rows = {row.id: row for row in self.rows}
        return {level: rows[row].cells[column] for level, row in (self.noise_levels or {}).items()}

    @property
    def name(self) -> str:
        """Its name in the paper: "Table 3", "Figure 4"."""
        return f"{self.id[:-1].capitalize()} {self.id[-1]}"


@dataclass(frozen=True)
class PaperClaim:
    """A claim as a statement that runs (or, for `ratio`, counts) can decide.

    `lower` and `higher` name the two arms: one experiment each, or for `slope` one experiment per noise level.
    """

    id: str
    kind: ClaimKind
    table: str
    text: str
    quantity: str = "test_error"
    printed: float | None = None
    dataset: str | None = None
    stage: int | None = None
    lower: Arm = None
    higher: Arm = None
    experiment: str | None = None
    network: str | None = None
    reference: str | None = None


@dataclass(frozen=True)
class Paper:
    """Everything that `paper.yaml` holds."""

    title: str
    arxiv: str
    venue: str
    protocols: Mapping[str, Mapping[str, Any]]
    tables: tuple[PaperTable, ...]
    claims: tuple[PaperClaim, ...]

    def table(self, name: str) -> PaperTable:
        """The table of that id; KeyError when there is none."""
        return {table.id: table for table in self.tables}[name]


@cache
def load_paper() -> Paper:
    """Read `paper.yaml`; a key that is not known there is a TypeError."""
    content = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8"))
    protocols = {}
    for protocol in content["protocols"]:
        for dataset in protocol.pop("datasets"):
            protocols[dataset] = protocol
    return Paper(
        **content["paper"],
        protocols=protocols,
        tables=tuple(_table(entry) for entry in content["tables"]),
        claims=tuple(PaperClaim(**entry) for entry in content["claims"]),
    )


def _table(entry: dict[str, Any]) -> PaperTable:
    columns = tuple(PaperColumn(**column) for column in entry.pop("columns"))
    rows = tuple(
        PaperRow(row["id"], row["label"], {key: PaperCell(**cell) for key, cell in row["cells"].items()})
        for row in entry.pop("rows")
    )
    return PaperTable(**entry, columns=columns, rows=rows)


def deviations(config: Mapping[str, Any], paper: Paper) -> dict[str, tuple[Any, Any]]:
    """Where a run's protocol or size of data differs from the paper's: key -> (the run's value, the paper's).

    A data set that the paper does not use has no protocol there: the only entry is then `dataset`. The sizes are
    those of the configuration; one that was made without the data does not know them.
    """
    dataset = config["data"]["dataset"]
    if dataset not in paper.protocols:
        return {"dataset": (dataset, " or ".join(sorted(paper.protocols)))}
    sizes = {key: value for key, value in config["data"].items() if key in SIZES}
    ours = {**config["protocol"], **sizes}
    return {
        key: (ours.get(key), value)
        for key, value in paper.protocols[dataset].items()
        if not _same(ours.get(key), value) and (key in ours or key not in SIZES)
    }


def _same(ours: Any, printed: Any) -> bool:
    if isinstance(ours, (list, tuple)) and isinstance(printed, list):
        return list(ours) == printed
    return bool(ours == printed)
