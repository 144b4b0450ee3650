"""Our training loop beside the one that a user would write: images a second on the hardware at hand.

What a loop reports are the seconds of blocks of steps: the first is left out, the median of the others counts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline.benchmark.loops import (
    BATCH,
    Blocks,
    Job,
    checkpoints,
    network_share,
    ours,
    plain,
    random_images,
    under_ray,
)
from pipeline.benchmark.rates import check_blocks, median_and_spread
from pipeline.training import huge_pages
from pipeline.utils.cores import available_cores
from pipeline.utils.subprocesses import run_apart

NETWORKS: Final = ("cifar_attention56", "cifar_attention92", "cifar_attention164", "cifar_preresnet164")
FOLDER: Final = Path("benchmarks") / "training"
STEPS: Final = {"cpu": 4, "cuda": 200}
"""Steps of a block."""


@dataclass(frozen=True)
class Rate:
    """One row of the table.

    Attributes:
        images_per_second: median over the blocks but the first, of all runs together.
        spread: interquartile range of it, in percent.
        ms_per_step: of each run.
        to_plain: images a second over those of the plain loop on the same hardware.
        start_up: seconds until the first step of the network was done, from a Python that has not imported torch yet.
        peak_mib: memory of the process that trains; on CUDA that of its tensors; None under Ray.
        not_network: share of a step, in percent, in which the network is not at work; None where not measured.
        checkpoint: seconds that a checkpoint takes by itself; None where not measured.
    """

    network: str
    loop: str
    threads: int
    workers: int
    images_per_second: float
    spread: float
    ms_per_step: float
    to_plain: float | None
    start_up: float
    peak_mib: float | None
    not_network: float | None
    checkpoint: float | None


def benchmark_training(
    networks: tuple[str, ...], device: str, blocks: int, seconds: float, report: Callable[[Rate], None]
) -> list[Rate]:
    """Measure every loop with every network.

    Args:
        blocks: of steps, the first of which does not count.
        seconds: after which one measurement is given up (TimeoutError).
        report: called with every row as soon as it is there.
    """
    check_blocks(blocks)
    rates: list[Rate] = []
    cores = available_cores()
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks:
            job = Job(network, device, STEPS[device], blocks, cores, 1, Path(scratch))
            random_images(job.folder / "prepared", job.steps * BATCH)
            shares = list(run_apart(network_share, job, seconds, huge_pages.ENVIRONMENT))
            saved = list(run_apart(checkpoints, job, seconds, huge_pages.ENVIRONMENT))
            base: Rate | None = None
            for loop, function, environment, changes in _variants(device, cores):
                (found,) = run_apart(function, replace(job, **changes), seconds, environment)
                rate = _rate(network, loop, replace(job, **changes), found, base)
                if loop == "ours, in-process":
                    other = 100 * (1 - statistics.median(shares[1:]))
                    rate = replace(rate, not_network=other, checkpoint=statistics.median(saved[1:]))
                base = base or rate
                rates.append(rate)
                report(rate)
    return rates


Variant = tuple[str, Callable[[Job], Iterator[Blocks]], dict[str, str], dict[str, Any]]


def _variants(device: str, cores: int) -> list[Variant]:
    """The loops, the plain one first: name, function, environment of its process, changes to the job."""
    huge = huge_pages.ENVIRONMENT  # as the pipeline starts ours
    variants: list[Variant] = [
        ("plain eager float32", plain, {}, {}),
        ("ours, in-process", ours, huge, {}),
        ("ours, Ray Train", under_ray, huge, {}),
    ]
    if device == "cpu":
        variants.insert(2, ("ours, without huge pages", ours, {}, {}))
        if cores > 1:
            variants.append(("ours, Ray Train", under_ray, huge, {"workers": 2, "threads": cores // 2}))
    return variants


def _rate(network: str, loop: str, job: Job, found: Blocks, plain: Rate | None) -> Rate:
    median, spread = median_and_spread(job.steps * BATCH, found.seconds)
    return Rate(
        network=network,
        loop=loop,
        threads=job.threads,
        workers=job.workers,
        images_per_second=median,
        spread=spread,
        ms_per_step=1000 * BATCH / median,
        to_plain=None if plain is None else median / plain.images_per_second,
        start_up=found.start_up,
        peak_mib=found.peak_mib,
        not_network=None,
        checkpoint=None,
    )


def as_markdown(rates: Iterable[Rate]) -> str:
    """The rows as a table to read."""
    head = (
        "network",
        "loop",
        "workers x threads",
        "images/s",
        "of plain",
        "ms a step",
        "start-up",
        "peak",
        "not network",
        "checkpoint",
    )
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for rate in rates:
        cells = (
            rate.network,
            rate.loop,
            f"{rate.workers} x {rate.threads}",
            f"{rate.images_per_second:.0f} ± {rate.spread / 2:.0f} %",
            "" if rate.to_plain is None else f"{rate.to_plain:.2f}",
            f"{rate.ms_per_step:.0f}",
            f"{rate.start_up:.1f} s",
            "" if rate.peak_mib is None else f"{rate.peak_mib:.0f} MiB",
            "" if rate.not_network is None else f"{rate.not_network:.1f} %",
            "" if rate.checkpoint is None else f"{rate.checkpoint:.2f} s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
