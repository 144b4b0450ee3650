"""The counts of the networks, as `python -m pipeline counts` wrote them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.records import Problem


@dataclass(frozen=True)
class Count:
    """Exact counts of one network at one image size; `reading` says what about it had to be inferred."""

    network: str
    image_size: int
    parameters: int
    multiply_adds: int
    depth: int
    reading: str

    def of(self, quantity: str) -> int:
        """One of `parameters`, `multiply_adds` and `depth`."""
        return {"parameters": self.parameters, "multiply_adds": self.multiply_adds, "depth": self.depth}[quantity]


Counts = Mapping[str, Count]
"""By network."""


def read_counts(folder: Path | None) -> tuple[dict[str, Count], list[Problem]]:
    """Counts from the CSV files of `folder`, empty where there are none yet; and the files that cannot be read.

    Of a network's several lines the first one counts: the smallest images, the first data set.
    """
    counts: dict[str, Count] = {}
    problems = []
    for path in sorted(folder.glob("*.csv")) if folder is not None else ():
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    counts.setdefault(row["network"], _count(row))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            problems.append(Problem(f"{path.parent.name}/{path.name}", f"not a table of counts ({error})"))
    return counts, problems


def _count(row: Mapping[str, str]) -> Count:
    return Count(
        network=row["network"],
        image_size=int(row["image_size"]),
        parameters=int(row["parameters"]),
        multiply_adds=int(row["multiply_adds"]),
        depth=int(row["trunk_depth"]),
        reading=row.get("our_reading") or "",
    )
