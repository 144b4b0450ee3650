"""The counts of the networks, as `python -m pipeline counts` wrote them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.report.records import Problem


@dataclass(frozen=True)
class Count:
    """Exact counts of one network at one image size; `reading` says what about it had to be inferred.

    multiply_adds_at: those at every size that was counted, by the image size in pixels.
    """

    network: str
    image_size: int
    parameters: int
    multiply_adds: int
    depth: int
    reading: str
    multiply_adds_at: Mapping[int, int] = field(default_factory=dict)

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
                    count = _count(row)
                    first = counts.get(count.network, count)
                    at = {count.image_size: count.multiply_adds} | dict(first.multiply_adds_at)
                    counts[count.network] = replace(first, multiply_adds_at=at)
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
