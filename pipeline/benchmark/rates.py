"""Images a second from the seconds of equal blocks of batches, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.utils.errors import UserError
from pipeline.utils.files import csv_text, write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_blocks(blocks: int) -> None:
    """Refuse fewer blocks than a spread can be told from."""
    if blocks < 3:
        raise UserError(f"--blocks {blocks}: at least 3 are needed, the first of which does not count")


def median_and_spread(images: int, seconds: Sequence[float]) -> tuple[float, float]:
    """Images a second over all blocks but the first: their median, and their interquartile range in percent of it.

    Args:
        images: of a block.
        seconds: that each block took.
    """
    low, median, high = statistics.quantiles([images / s for s in seconds[1:]], n=4, method="inclusive")
    return median, 100 * (high - low) / median


def write_rates(path: Path, rates: Sequence[DataclassInstance], **measured_on: object) -> None:
    """Write rows of one kind as CSV, with what they were measured on, atomically."""
    about = {**measured_on, "torch": torch.__version__}
    rows = [asdict(rate) | about for rate in rates]
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows]
    write_atomic(path, csv_text(list(rows[0]), cells))
