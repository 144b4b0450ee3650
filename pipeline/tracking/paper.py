"""Which cells of the paper's tables an experiment fills."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PAPER = Path(__file__).resolve().parents[1] / "settings" / "paper.yaml"


class Cell(NamedTuple):
    """A cell that a run fills: ``<table>/<row>/<column>``, as `python -m pipeline trace` takes it."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        return "/".join(self)


@functools.cache
def _tables() -> tuple[Mapping[str, Any], ...]:
    return tuple(yaml.safe_load(PAPER.read_text(encoding="utf-8"))["tables"])


def table_title(table: str) -> str:
    """Title of a table, e.g. ``Activation of the mask, Attention-56``."""
    return next(str(content["title"]) for content in _tables() if content["id"] == table)


def cells(experiment: str, dataset: str) -> list[Cell]:
    """The cells that runs of an experiment on a data set fill, in the paper's order.

    Tables of scope `profile` take any data set, stand-ins included; those of scope `everywhere` the column's alone.
    """
    found = []
    for table in _tables():
        columns = {column["id"]: column for column in table["columns"]}
        for row in table["rows"]:
            for column, cell in row["cells"].items():
                wanted = columns[column].get("dataset", table["dataset"])
                if cell.get("experiment") == experiment and (table["scope"] == "profile" or dataset == wanted):
                    found.append(Cell(table["id"], row["id"], column))
    return found
