"""What pending runs will cost, estimated from the speed of runs that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from pipeline import runs
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.plan import PASSES
from pipeline.training.records import METRICS, Provenance
from pipeline.training.spec import RunSpec

if TYPE_CHECKING:
    from pipeline.driver import Driver


def rates(driver: Driver) -> dict[str, float]:
    """Multiply-adds of training per second of one worker, by device: the median over the finished runs in the store."""
    found: dict[str, list[float]] = {}
    for folder in runs.folders(driver.store):
        try:
            metrics, provenance = read_json(folder / METRICS), Provenance.read(folder)
        except UserError:
            continue  # not finished
        if provenance is None:
            continue
        for segment in provenance.segments:
            if segment.images_per_second > 0:
                work = PASSES * metrics["multiply_adds"] * segment.images_per_second / segment.workers
                found.setdefault(segment.device, []).append(work)
    return {device: median(values) for device, values in found.items()}


def outlook(driver: Driver, specs: Sequence[RunSpec]) -> str:
    """What is pending, in a few lines."""
    total = len(driver.plan["runs"])
    if not specs:
        return f"nothing pending: all {total} runs are in the store or published"
    work = sum(driver.plan["runs"][spec.name]["cost"]["training_multiply_adds"] for spec in specs)
    lines = [f"{len(specs)} of {total} runs pending: {work:.3g} multiply-adds"]
    for device, rate in rates(driver).items():
        lines.append(f"  about {_hours(work / rate)} of one worker, at the speed of earlier runs on {device}")
    if len(lines) == 1:
        lines.append("  time unknown: no run has been finished here yet")
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
