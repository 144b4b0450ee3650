"""The paper's numbers and claims, read from `paper.yaml` (all of arXiv:1704.06904v1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Scope = Literal["profile", "everywhere", "counts"]
Arm = str | Mapping[int, str] | None
ClaimKind = Literal["lower", "slope", "value", "ratio"]

COUNTED = ("parameters", "multiply_adds", "depth")
SIZES = ("image_size", "train_images", "test_images")
"""Keys of a protocol that are found in a run's data."""
SCHEDULE = ("iterations", "milestones", "learning_rate", "gamma")
"""Keys of a protocol that make up its schedule."""
UNITS = {"parameters": 1e6, "multiply_adds": 1e9, "depth": 1.0}
_PLAIN: Mapping[str, Any] = {
    "learning": "arl", "activation": "mixed", "mask": "encoder_decoder", "p": 1, "t": 2, "r": 1,
    "noise": 0, "train_crop": 224, "test_crop": 224, "colour": 0.1,
}  # fmt: skip
"""What an experiment of the paper is where nothing else is said of it."""


class Printed(float):
    """A number of the paper, with the digits that it is printed with: `str(Printed("3.90"))` is "3.90"."""

    def __new__(cls, text: str | float) -> Printed:
        """Read the number; ValueError when it is none."""
        number = super().__new__(cls, text)
        number._text = str(text)
        return number

    _text: str

    def __str__(self) -> str:
        return self._text


@dataclass(frozen=True)
class Protocol:
    """How the paper trains on a data set, and what each of its experiments is.

    Attributes:
        settings: of the optimisation and the data, by the names that a run's configuration has for them.
        experiments: network, options, label noise and crops of each experiment that differ from the defaults.
        least: smallest values of settings that the paper does not give exactly.
        checksum: of the data's prepared arrays; None where it is not known.
        readings: sentences on what this project does where the paper is silent.
    """

    settings: Mapping[str, Any]
    experiments: Mapping[str, Mapping[str, Any]]
    least: Mapping[str, int]
    checksum: str | None
    readings: tuple[str, ...]


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

    printed: Printed | None
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
        name = self.id.partition("-")[0]  # table5-draw1 is Table 5 with another draw of its noisy labels
        return f"{name[:-1].capitalize()} {name[-1]}"


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
    printed: Printed | None = None
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
    protocols: Mapping[str, Protocol]
    tables: tuple[PaperTable, ...]
    claims: tuple[PaperClaim, ...]
    against_resnet200: Mapping[str, Any]

    def table(self, name: str) -> PaperTable:
        """The table of that id; KeyError when there is none."""
        return {table.id: table for table in self.tables}[name]


@cache
def load_paper() -> Paper:
    """Read `paper.yaml`; a key that is not known there is a TypeError."""
    import yaml  # a machine that only trains has none

    content = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8"))
    protocols = {
        dataset: Protocol(
            settings=entry["settings"],
            experiments=entry["experiments"],
            least=entry.get("least", {}),
            checksum=entry.get("checksums", {}).get(dataset),
            readings=tuple(entry["readings"]),
        )
        for entry in content["protocols"]
        for dataset in entry["datasets"]
    }
    tables = tuple(_table(entry) for entry in content["tables"])
    return Paper(
        **content["paper"],
        protocols=protocols,
        tables=tables,
        claims=tuple(PaperClaim(**_with_printed(entry)) for entry in content["claims"]),
        against_resnet200=_against_resnet200(content["against_resnet200"], tables),
    )


def _table(entry: dict[str, Any]) -> PaperTable:
    columns = tuple(PaperColumn(**column) for column in entry.pop("columns"))
    rows = tuple(
        PaperRow(row["id"], row["label"], {key: paper_cell(cell) for key, cell in row["cells"].items()})
        for row in entry.pop("rows")
    )
    return PaperTable(**entry, columns=columns, rows=rows)


def paper_cell(entry: dict[str, Any]) -> PaperCell:
    """Return a cell as YAML has it."""
    return PaperCell(**_with_printed(entry))


def _against_resnet200(content: dict[str, Any], tables: Sequence[PaperTable]) -> dict[str, Any]:
    """Put the cells of the tables in the place of their names, ``table/row/column``."""
    named = {
        f"{table.id}/{row.id}/{column}": cell
        for table in tables
        for row in table.rows
        for column, cell in row.cells.items()
    }

    def find(entry: Any) -> PaperCell:
        if isinstance(entry, str):
            return named[entry]
        return paper_cell(entry if isinstance(entry, dict) else {"printed": entry})

    for statement in content["statements"] + content["others"]:
        statement |= {key: find(statement[key]) for key in ("first", "second")}
    for size in content["sizes"]:
        size["printed"] = tuple(find(entry).printed for entry in size.get("printed", (None, None)))
    return content


def _with_printed(entry: dict[str, Any]) -> dict[str, Any]:
    return entry if entry.get("printed") is None else entry | {"printed": Printed(entry["printed"])}


def deviations(config: Mapping[str, Any], paper: Paper) -> dict[str, tuple[Any, Any]]:
    """Where a run differs from the paper's: key -> (the run's value, the paper's).

    Compared are protocol, data (size and, where it is known, checksum), and what the experiment of that name is:
    network, options, label noise, crops. A data set that the paper does not use has no protocol there: the only entry
    is then `dataset`. A configuration that was made without the data does not know their size and checksum.
    """
    data = config["data"]
    if data["dataset"] not in paper.protocols:
        return {"dataset": (data["dataset"], " or ".join(sorted(paper.protocols)))}
    protocol = paper.protocols[data["dataset"]]
    ours = {**config["protocol"], **{key: data[key] for key in SIZES if key in data}}
    wanted = {key: value for key, value in protocol.settings.items() if key in ours or key not in SIZES}
    if config["experiment"] in protocol.experiments:
        ours |= _experiment(config)
        wanted |= {**_PLAIN, **protocol.experiments[config["experiment"]]}
    if protocol.checksum is not None and data.get("checksum"):
        ours["checksum"] = data["checksum"]
        wanted["checksum"] = protocol.checksum
    found = {key: (ours.get(key), value) for key, value in wanted.items() if not _same(ours.get(key), value)}
    short = {key: (ours[key], f"at least {n}") for key, n in protocol.least.items() if key in ours and ours[key] < n}
    return found | short


def _experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an experiment is: network, options, label noise and crops."""
    crops = config.get("crops") or {}
    cut = {f"{key}_crop": crops[key] for key in ("train", "test") if key in crops}
    coloured = {key: crops[key] for key in ("colour",) if key in crops}
    network = {"network": config["network"]["name"], "noise": config["data"].get("noise") or 0}
    return {**_PLAIN, **config["network"].get("options", {}), **network, **cut, **coloured}


def _same(ours: Any, printed: Any) -> bool:
    if isinstance(ours, (list, tuple)) and isinstance(printed, list):
        return list(ours) == printed
    return bool(ours == printed)
