"""The committed tables of measured speed: one CSV file for each kind of hardware, which every run extends."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from models.registry import natural_order
from pipeline.utils.errors import UserError, one_line, shown
from pipeline.utils.files import csv_text, write_atomic

MEASURED: Final = "measured"
OUT_OF_MEMORY: Final = "out of memory"
OUT_OF_TIME: Final = "out of time"
SMALLEST: Final = 1e-9
LARGEST: Final = 10**15


@dataclass(frozen=True)
class Speed:
    """One network at one image size, evaluated or trained; the numbers are None where `status` is not "measured".

    mode: "evaluation" (forward, running statistics) or "training" (forward, backward and a step of SGD).
    precision: "float32", or "bfloat16" for autocast to it; memory_format: "contiguous" or "channels_last".
    median_ms, iqr_ms: median and interquartile range, over `repeats` steps after `warm_up` others, of the milliseconds
        that one step over `batch_size` images takes.
    peak_memory_mib: largest memory held by tensors, in MiB; CUDA alone tells it.
    hardware: the kind of hardware, as text; commit: of the code, with "+" where it had been changed since.
    our_reading: what of the network's structure is inferred; "" where nothing is.
    joules_per_image: energy of the GPU for one image of the repeated training steps; None where it was not measured.
    """

    network: str
    image_size: int
    mode: str
    batch_size: int
    precision: str
    memory_format: str
    threads: int
    status: str
    median_ms: float | None
    iqr_ms: float | None
    images_per_second: float | None
    peak_memory_mib: float | None
    warm_up: int
    repeats: int
    hardware: str
    torch: str
    commit: str
    our_reading: str
    joules_per_image: float | None = None

    def __post_init__(self) -> None:
        """Refuse a size, a count or a time that cannot be."""
        for name in ("image_size", "batch_size", "threads", "warm_up", "repeats"):
            fewest = 0 if name in ("warm_up", "repeats") else 1
            if not fewest <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} = {shown(getattr(self, name))}: must be from {fewest} to {LARGEST}")
        for name in ("median_ms", "iqr_ms", "images_per_second", "peak_memory_mib", "joules_per_image"):
            value = getattr(self, name)
            least = SMALLEST if name in ("median_ms", "images_per_second") else 0  # one divides by them
            if value is not None and not least <= value <= LARGEST:
                raise ValueError(f"{name} = {shown(value)}: must be a number from {least:g} to {LARGEST}")

    @property
    def key(self) -> tuple[object, ...]:
        """What a later measurement must share to take this one's place; also the order of the rows."""
        return (
            natural_order(self.network),
            self.image_size,
            self.mode,
            self.precision,
            self.memory_format,
            self.threads,
        )

    @property
    def ms_per_image(self) -> float | None:
        """Median milliseconds for one image of the batch."""
        return None if self.median_ms is None else self.median_ms / self.batch_size

    def __str__(self) -> str:
        text = f"{self.network} {self.image_size} {self.mode}: "
        if self.median_ms is None:
            return text + self.status
        images = "an image" if self.batch_size == 1 else f"{self.batch_size} images"
        return text + f"{self.median_ms:.1f} ms for {images}, interquartile range {self.iqr_ms:.1f} ms"


COLUMNS: Final = tuple(field.name for field in fields(Speed))
WITHOUT_ENERGY: Final = COLUMNS[:-1]
"""Those of tables that are older than the last column."""


def read_table(path: str | Path) -> list[Speed]:
    """The rows of a table. Raises UserError, in one line, for a file that is none."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) not in (COLUMNS, WITHOUT_ENERGY):
                raise ValueError("other columns than those of python -m pipeline benchmark networks")
            return [_row(cells, reader.line_num) for cells in reader]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:  # a folder, a loop of links, no permission
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a table of measured speed ({one_line(error)})") from None


def _row(cells: Mapping[str, str], line: int) -> Speed:
    try:
        return _speed(cells)
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from None


def _speed(cells: Mapping[str, str]) -> Speed:
    if None in cells.values() or None in cells:
        raise ValueError("other columns than in the first line")

    def number(name: str) -> float | None:
        return float(cells[name]) if cells.get(name) else None

    row = Speed(
        network=cells["network"],
        image_size=int(cells["image_size"]),
        mode=cells["mode"],
        batch_size=int(cells["batch_size"]),
        precision=cells["precision"],
        memory_format=cells["memory_format"],
        threads=int(cells["threads"]),
        status=cells["status"],
        median_ms=number("median_ms"),
        iqr_ms=number("iqr_ms"),
        images_per_second=number("images_per_second"),
        peak_memory_mib=number("peak_memory_mib"),
        warm_up=int(cells["warm_up"]),
        repeats=int(cells["repeats"]),
        hardware=cells["hardware"],
        torch=cells["torch"],
        commit=cells["commit"],
        our_reading=cells["our_reading"],
        joules_per_image=number("joules_per_image"),
    )
    if (row.median_ms is not None) != (row.status == MEASURED):
        raise ValueError(f"{row.network} is {row.status!r} and its median_ms {cells['median_ms']!r}")
    return row


def extend_table(path: str | Path, rows: Iterable[Speed]) -> None:
    """Put rows into a table, each in the place of an older one of the same key, atomically."""
    known = read_table(path) if Path(path).exists() else []
    table = {row.key: row for row in (*known, *rows)}
    cells = [[_cell(getattr(row, name)) for name in COLUMNS] for _, row in sorted(table.items())]
    write_atomic(path, csv_text(COLUMNS, cells))


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
