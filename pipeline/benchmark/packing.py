"""How many runs at once on one machine, or one GPU, are the fastest in sum."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.benchmark.loops import BATCH, Job, ours_by_the_clock, random_images
from pipeline.training import huge_pages
from pipeline.utils.cores import available_cores
from pipeline.utils.errors import UserError
from pipeline.utils.subprocesses import run_side_by_side

FOLDER: Final = Path("benchmarks") / "packing"
NETWORKS: Final = ("cifar_attention56", "cifar_attention92", "cifar_preresnet164")
AT_ONCE: Final = (1, 2, 4, 8)
STEPS: Final = {"cpu": 4, "cuda": 200}
"""Steps of a block."""


@dataclass(frozen=True)
class Packed:
    """One row of the table.

    Attributes:
        at_once: runs that train side by side, each in a process of its own.
        threads: CPU threads of each.
        images_per_second: training images of all runs together, while all of them train.
        to_one: the same over that of one run alone.
        ms_per_step: of each run.
    """

    network: str
    at_once: int
    threads: int
    images_per_second: float
    to_one: float
    ms_per_step: float


def benchmark_packing(
    networks: Iterable[str], device: str, blocks: int, seconds: float, report: Callable[[Packed], None]
) -> list[Packed]:
    """Measure one run alone, and several at once; on the CPU, they share the cores.

    Args:
        blocks: of steps of each run, the first of which does not count.
        seconds: after which one measurement is given up (TimeoutError).
        report: called with every row as soon as it is there.

    Raises:
        UserError: if the runs did not train at the same time; more blocks are needed.
    """
    cores = available_cores()
    rows: list[Packed] = []
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        random_images(images / "prepared", STEPS[device] * BATCH)
        for network in networks:
            alone: float | None = None
            for at_once in (count for count in AT_ONCE if device != "cpu" or count <= cores):
                threads = max(1, cores // at_once)
                job = Job(network, device, STEPS[device], blocks, threads, 1, images)
                found = run_side_by_side(ours_by_the_clock, _apart(job, at_once), seconds, huge_pages.ENVIRONMENT)
                rate = job.steps * BATCH * blocks_per_second([marks for (marks,) in found])
                alone = alone or rate
                rows.append(Packed(network, at_once, threads, rate, rate / alone, 1000 * at_once * BATCH / rate))
                report(rows[-1])
    return rows


def _apart(job: Job, count: int) -> list[Job]:
    """As many jobs on the same images, each with a folder of its own."""
    folders = [job.folder.with_name(f"{job.network}-{count}-{k}") for k in range(count)]
    for folder in folders:
        folder.mkdir()
        (folder / "prepared").symlink_to(job.folder / "prepared")
    return [replace(job, folder=folder) for folder in folders]


def blocks_per_second(marks: Sequence[Sequence[float]]) -> float:
    """Blocks of all runs together, over the time in which all of them trained.

    Args:
        marks: when each run began its blocks, in seconds by the same clock, rising.

    Raises:
        UserError: if there is no such time.
    """
    start, end = max(run[0] for run in marks), min(run[-1] for run in marks)
    if end <= start:
        raise UserError(f"--blocks {len(marks[0]) + 1}: the runs did not train at the same time; more are needed")
    done = sum(float(np.diff(np.interp([start, end], run, range(len(run))))[0]) for run in marks)
    return done / (end - start)


def as_markdown(rows: Iterable[Packed]) -> str:
    """The rows as a table to read."""
    lines = [
        "| network | at once | threads of each | images/s in sum | of one | ms a step of each |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.network} | {row.at_once} | {row.threads} | {row.images_per_second:.0f} | {row.to_one:.2f} |"
        f" {row.ms_per_step:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def as_advice(rows: Sequence[Packed], device: str) -> str:
    """What to set, from what was fastest in sum."""
    best = {
        network: max((row for row in rows if row.network == network), key=lambda row: row.images_per_second)
        for network in dict.fromkeys(row.network for row in rows)
    }
    return "\n".join(
        f"{network}: fastest in sum with {row.at_once} at once, "
        + (f"resources.threads={row.threads}" if device == "cpu" else f"resources.gpus={1 / row.at_once:g}")
        for network, row in best.items()
    )
