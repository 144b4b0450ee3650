"""What training at the ImageNet recipe costs, estimated from measured speed and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.benchmark.table import Speed
from pipeline.report.forms import csv_text
from pipeline.report.numbers import DASH
from pipeline.report.speed import NOT_MEASURED, setting_of

SECONDS_AN_HOUR, JOULES_A_KILOWATT_HOUR = 3600, 3_600_000


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
            _text(v) for v in (self.images_per_second, self.device_hours, self.joules_per_image, self.kilowatt_hours)
        )
        return batch, rate or self.status, hours or self.status, joules or NOT_MEASURED, energy or NOT_MEASURED


def _text(value: float | None) -> str:
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
    return csv_text(header, rows)
