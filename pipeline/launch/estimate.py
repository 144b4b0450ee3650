"""The cost of pending runs, estimated from the throughput of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pipeline import runs
from pipeline.runs.finished import read_spec
from pipeline.runs.records import CONFIG, Metrics, Provenance, Segment
from pipeline.runs.spec import RunSpec
from pipeline.settings.plan import PASSES, Plan
from pipeline.utils.errors import UserError, printable

if TYPE_CHECKING:
    from pipeline.launch.driver import Driver


@dataclass
class Throughput:
    """Multiply-adds of training per second of one GPU, or of one CPU core, measured on one kind of device.

    Attributes:
        device: name of the device.
        measured: values by network.
        source: what they were measured by.
    """

    device: str
    measured: dict[str, list[float]] = field(default_factory=dict)  # by network
    source: str = "the throughput of earlier runs"

    @property
    def unit(self) -> str:
        """The unit whose seconds count: GPU or CPU."""
        return "GPU" if self.device.startswith("cuda") else "CPU"

    def hours(self, network: str, work: float) -> float:
        """Return GPU-hours or CPU-hours for so many multiply-adds, at the speed of that network, or else of all."""
        every = self.measured.get(network) or [speed for speeds in self.measured.values() for speed in speeds]
        return work / median(every) / 3600


def throughputs(driver: Driver) -> list[Throughput]:
    """Return what earlier runs reached, in the store and published, finished or not; one for each device."""
    found: dict[str, Throughput] = {}
    published = sorted(path.parent for path in (driver.root / runs.PUBLISHED).glob(f"*/*/{CONFIG}"))
    for folder in [*runs.folders(driver.store), *published]:
        for network, work, segment in _measurements(folder, driver.plan):
            throughput = found.setdefault(segment.device, Throughput(segment.device))
            used = segment.workers * ((segment.gpus or 1.0) if throughput.unit == "GPU" else segment.threads)
            throughput.measured.setdefault(network, []).append(work * segment.images_per_second / used)
    return list(found.values())


def _measurements(folder: Path, plan: Plan) -> Iterator[tuple[str, float, Segment]]:
    """Yield network, multiply-adds of training for one image, and segment, of every segment of a run."""
    try:
        spec, provenance = read_spec(folder), Provenance.read(folder)
        planned = plan.runs.get(spec.name)
        if planned is not None and planned.identity == spec.identity:
            cost = planned.cost.multiply_adds
        else:  # another profile has other runs of that name
            cost = Metrics.read(folder).multiply_adds
    except UserError:
        return  # of another profile and not finished, or no run
    for segment in provenance.segments if provenance else ():
        if segment.images_per_second > 0:
            yield spec.network.name, PASSES * cost, segment


def outlook(driver: Driver, specs: Sequence[RunSpec], probed: Sequence[Throughput] = ()) -> str:
    """Describe what is pending, a line for each run, and what all of it will cost; by a probe, where there is one."""
    total = len(driver.plan.runs)
    if not specs:
        return f"nothing pending: all {total} runs are in the store or published"
    work = {spec.name: driver.plan.runs[spec.name].cost.training_multiply_adds for spec in specs}
    measured = list(probed) or throughputs(driver)
    width = max(map(len, work))
    lines = []
    for spec in specs:
        costs = [_describe(t, t.hours(spec.network.name, work[spec.name])) for t in measured]
        lines.append(f"  {spec.name:{width}}  {', '.join(costs) or f'{work[spec.name]:.3g} multiply-adds'}")
    lines.append(f"{len(specs)} of {total} runs pending: {sum(work.values()):.3g} multiply-adds")
    for throughput in measured:
        hours = sum(throughput.hours(spec.network.name, work[spec.name]) for spec in specs)
        where = f"{throughput.source} on {printable(throughput.device)}"
        lines.append(f"  about {_describe(throughput, hours)} at {where}")
    if not measured:
        lines.append("  time unknown: no run was measured here yet (`python -m pipeline launch --stop-after 2` does)")
    return "\n".join(lines)


def _describe(throughput: Throughput, hours: float) -> str:
    return f"{f'{hours:,.0f}' if hours >= 100 else f'{hours:.2g}'} {throughput.unit}-hours"
