"""The measured speed of networks, and what training at the ImageNet recipe would cost at that speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmark.table import Speed, read_table
from pipeline.report.forms import DASH, rounded_csv
from pipeline.report.records import Problem
from pipeline.utils.errors import UserError

PAIR = ("attention92", "preresnet200")
IMAGE_SIZES = (224, 320)
MODES = ("evaluation", "training")
NOT_MEASURED = "not measured"
SECONDS_AN_HOUR, JOULES_A_KILOWATT_HOUR = 3600, 3_600_000


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
        """Both times as text, with their interquartile range, or why there is none."""
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
    return rounded_csv([*header, "percent"], rows)


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
    """The conditions of a measured speed, as text."""
    threads = f"{speed.threads} thread{'' if speed.threads == 1 else 's'}"
    return f"{threads}, {speed.precision}, {speed.memory_format}, PyTorch {speed.torch}"


@dataclass(frozen=True)
class Recipe:
    """The training whose cost is estimated; `networks` are labels by registered name (see paper.yaml)."""

    iterations: int
    batch_size: int
    image_size: int
    networks: Mapping[str, str]

    @property
    def images(self) -> int:
        """Images that one training sees."""
        return self.iterations * self.batch_size


@dataclass(frozen=True)
class Cost:
    """One network on one kind of hardware; `speed` is None where its training was not measured there."""

    hardware: str
    setting: str
    network: str
    images: int
    speed: Speed | None

    @property
    def status(self) -> str:
        """Status of the measurement of its speed."""
        return NOT_MEASURED if self.speed is None else self.speed.status

    @property
    def images_per_second(self) -> float | None:
        """Training images a second; None where they were not measured."""
        return None if self.speed is None else self.speed.images_per_second

    @property
    def device_hours(self) -> float | None:
        """Hours that the recipe takes one such device: GPU-hours, where that is a GPU."""
        rate = self.images_per_second
        return self.images / rate / SECONDS_AN_HOUR if rate else None

    @property
    def joules_per_image(self) -> float | None:
        """Energy of a training image in joules; None where it was not measured."""
        return None if self.speed is None else self.speed.joules_per_image

    @property
    def kilowatt_hours(self) -> float | None:
        """Energy that the GPUs use for the recipe."""
        joules = self.joules_per_image
        return None if joules is None else self.images * joules / JOULES_A_KILOWATT_HOUR

    @property
    def texts(self) -> tuple[str, str, str, str, str]:
        """Batch, images a second, device-hours, joules an image and kilowatt-hours, or why they are not there."""
        batch = DASH if self.speed is None else str(self.speed.batch_size)
        rate, hours, joules, energy = (
            _cost_text(v)
            for v in (self.images_per_second, self.device_hours, self.joules_per_image, self.kilowatt_hours)
        )
        return batch, rate or self.status, hours or self.status, joules or NOT_MEASURED, energy or NOT_MEASURED


def _cost_text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def training_costs(speeds: Sequence[Speed], recipe: Recipe) -> list[Cost]:
    """The recipe's networks side by side, for every hardware and setting that one of them was trained on."""
    found: dict[tuple[str, str], dict[str, Speed]] = {}
    for speed in speeds:
        if speed.network in recipe.networks and (speed.mode, speed.image_size) == ("training", recipe.image_size):
            found.setdefault((speed.hardware, setting_of(speed)), {})[speed.network] = speed
    nothing: dict[str, Speed] = {}
    return [
        Cost(hardware, setting, label, recipe.images, rows.get(name))
        for (hardware, setting), rows in (sorted(found.items()) or [((DASH, DASH), nothing)])
        for name, label in recipe.networks.items()
    ]


def costs_csv(costs: Sequence[Cost]) -> str:
    """One line for each network, hardware and setting."""
    header = (
        "hardware", "setting", "network", "status", "batch_size", "images_per_second", "device_hours",
        "joules_per_image", "kilowatt_hours",
    )  # fmt: skip
    rows = [
        (
            cost.hardware, cost.setting, cost.network, cost.status, cost.speed and cost.speed.batch_size,
            cost.images_per_second, cost.device_hours, cost.joules_per_image, cost.kilowatt_hours,
        )
        for cost in costs
    ]  # fmt: skip
    return rounded_csv(header, rows)
