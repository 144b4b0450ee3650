"""Measured times of Attention-92 and ResNet-200, from the tables of `python -m pipeline benchmark networks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmark.table import Speed, read_table
from pipeline.report.forms import csv_text
from pipeline.report.numbers import DASH
from pipeline.report.records import Problem
from pipeline.utils.errors import UserError

PAIR = ("attention92", "preresnet200")
IMAGE_SIZES = (224, 320)
MODES = ("evaluation", "training")
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Times:
    """Milliseconds an image of both networks, measured alike; None where a network has no row."""

    hardware: str
    setting: str
    image_size: int
    mode: str
    pair: tuple[Speed | None, Speed | None]

    @property
    def texts(self) -> tuple[str, str]:
        """Both times in words, with their interquartile range, or why there is none."""
        first, second = (_text(speed) for speed in self.pair)
        return first, second

    @property
    def batch(self) -> str:
        """Images in a step."""
        sizes = sorted({speed.batch_size for speed in self.pair if speed is not None})
        return " and ".join(map(str, sizes)) or DASH

    @property
    def percent(self) -> float | None:
        """Time of the first in percent of the second; None unless both were measured in batches of one size."""
        first, second = self.pair
        if first is None or second is None or first.batch_size != second.batch_size:
            return None
        ours, theirs = first.ms_per_image, second.ms_per_image
        return 100 * ours / theirs if ours is not None and theirs else None


def _text(speed: Speed | None) -> str:
    if speed is None:
        return NOT_MEASURED
    if speed.ms_per_image is None:
        return speed.status
    return f"{speed.ms_per_image:.4g} (IQR {_spread(speed):.3g})"


def _spread(speed: Speed) -> float:
    """Interquartile range in milliseconds an image."""
    return (speed.iqr_ms or 0.0) / speed.batch_size


def times_csv(times: Sequence[Times]) -> str:
    """One line for each hardware, setting, mode and image size: milliseconds an image, or only a `status`."""
    header = ["hardware", "setting", "mode", "image_size", "batch_size"]
    header += [f"{name}_{key}" for name in ("attention92", "resnet200") for key in ("status", "ms", "iqr_ms")]
    rows = []
    for row in times:
        cells: list[object] = [row.hardware, row.setting, row.mode, row.image_size, row.batch.replace(DASH, "")]
        for speed in row.pair:
            cells.append(NOT_MEASURED if speed is None else speed.status)
            done = speed is not None and speed.ms_per_image is not None
            cells += [speed.ms_per_image, _spread(speed)] if speed is not None and done else [None, None]
        rows.append([*cells, row.percent])
    return csv_text([*header, "percent"], rows)


def read_speeds(folder: Path | None) -> tuple[list[Speed], list[Problem]]:
    """The rows of every table in `folder`, and the tables that cannot be read."""
    speeds: list[Speed] = []
    problems = []
    for path in sorted(folder.glob("*.csv")) if folder is not None else ():
        try:
            speeds += read_table(path)
        except UserError as error:
            problems.append(Problem(f"{path.parent.name}/{path.name}", str(error).removeprefix(f"{path}: ")))
    return speeds, problems


def pair_times(speeds: Sequence[Speed]) -> list[Times]:
    """Both networks side by side, for every hardware and setting that either was measured with."""
    found: dict[tuple[str, str], dict[tuple[str, int, str], Speed]] = {}
    for speed in speeds:
        if speed.network in PAIR:
            rows = found.setdefault((speed.hardware, setting_of(speed)), {})
            rows[speed.network, speed.image_size, speed.mode] = speed
    nothing: dict[tuple[str, int, str], Speed] = {}
    return [
        Times(hardware, setting, size, mode, (rows.get((PAIR[0], size, mode)), rows.get((PAIR[1], size, mode))))
        for (hardware, setting), rows in (sorted(found.items()) or [((DASH, DASH), nothing)])
        for mode in MODES
        for size in IMAGE_SIZES
    ]


def setting_of(speed: Speed) -> str:
    """Under what a speed was measured, in words."""
    threads = f"{speed.threads} thread{'' if speed.threads == 1 else 's'}"
    return f"{threads}, {speed.precision}, {speed.memory_format}, PyTorch {speed.torch}"
