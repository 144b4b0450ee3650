"""Our training loop beside the one that a user would write: images a second on the hardware at hand.

Every variant trains the same network on the same number of random images of the size of CIFAR's, in batches of 64, in a
process of its own. What it reports are blocks of steps: the first is left out, the median of the others counts.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from models import create_model
from pipeline import huge_pages
from pipeline.benchmark.apart import run_apart
from pipeline.benchmark.hardware import available_cores
from pipeline.benchmark.rates import median_and_spread
from pipeline.data.array_folder import write_arrays
from pipeline.training.execution import Execution
from pipeline.training.loop import Worker, train
from pipeline.training.records import TIMING, Timing, read_rows
from pipeline.training.session import LocalSession
from pipeline.training.spec import DataSpec, NetworkSpec, Protocol, RunSpec

NETWORKS: Final = ("cifar_attention56", "cifar_attention92", "cifar_attention164", "cifar_preresnet164")
BATCH, SIZE, CLASSES = 64, 32, 10
FOLDER: Final = Path("benchmarks") / "training"
STEPS: Final = {"cpu": 4, "cuda": 200}
"""Steps of a block."""


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    network: str
    device: str
    steps: int
    blocks: int
    threads: int
    workers: int
    folder: Path


@dataclass(frozen=True)
class Blocks:
    """What it found: seconds of each block, seconds from nothing to the end of the first step, and peak memory."""

    seconds: tuple[float, ...]
    start_up: float
    peak_mib: float | None


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


def random_images(folder: Path, images: int) -> str:
    """Prepared data of random pixels, as many for training as make a block; their checksum."""
    draw = np.random.Generator(np.random.PCG64(0)).integers
    pixels, labels = draw(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8), draw(0, CLASSES, images)
    arrays = {
        "train_images": pixels,
        "train_labels": labels,
        "test_images": pixels[:CLASSES],
        "test_labels": labels[:CLASSES],
        "mean": (pixels.mean(0) / 255).astype(np.float32),
    }
    about = {"classes": list("0123456789"), "image_shape": [SIZE, SIZE, 3]}
    counts = {"train_images": images, "test_images": CLASSES}
    return str(write_arrays(folder, arrays, {**about, **counts})["checksum"])


def run_spec(job: Job, *, name: str = "benchmark") -> RunSpec:
    """A run of ours at the paper's protocol, an epoch of which is a block."""
    images = job.steps * BATCH
    checksum = json.loads((job.folder / "prepared" / "manifest.json").read_text(encoding="utf-8"))["checksum"]
    steps = job.steps * job.blocks
    return RunSpec(
        experiment=name,
        seed=0,
        network=NetworkSpec(job.network, CLASSES),
        data=DataSpec("random", 0, checksum, None, SIZE, images, CLASSES, tuple("0123456789")),
        protocol=Protocol(steps, BATCH, 0.01, (steps,), 0.1, 0.9, True, 1e-4, 4, True, BATCH),
        precision="bfloat16",
    )


class PlainImages(Dataset[tuple[Tensor, int]]):
    """The random images, again and again, each through torchvision's transforms.

    Args:
        images: how many there are in all.
    """

    def __init__(self, folder: Path, images: int, transform: Callable[[NDArray[np.uint8]], Tensor]) -> None:
        self.pixels, self.labels = (np.load(folder / f"train_{name}.npy") for name in ("images", "labels"))
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index %= len(self.pixels)
        return self.transform(self.pixels[index]), int(self.labels[index])


def plain(job: Job) -> Iterator[Blocks]:
    """The loop that a user would write: eager float32, torchvision's transforms in the workers of a DataLoader."""
    started = _process_started()
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(SIZE, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )

    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    model = create_model(job.network, CLASSES).to(device)
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    images_and_labels = PlainImages(job.folder / "prepared", job.steps * job.blocks * BATCH, transform)
    loader = DataLoader(images_and_labels, BATCH, shuffle=True, num_workers=2, pin_memory=job.device == "cuda")
    seconds, first, begun, total = [], 0.0, time.monotonic(), 0.0
    for step, (images, labels) in enumerate(loader, start=1):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images.to(device)), labels.to(device))
        loss.backward()
        optimiser.step()
        total += loss.item()
        first = first or time.time() - started
        if step % job.steps == 0:
            seconds.append(time.monotonic() - begun)
            begun = time.monotonic()
    yield Blocks(tuple(seconds), first, _peak_mib(device))


def ours(job: Job) -> Iterator[Blocks]:
    """Our loop in this process."""
    started = _process_started()
    spec, session = run_spec(job), LocalSession(job.device)
    first = 0.0

    def look_at_the_clock() -> bool:
        nonlocal first
        first = first or time.time() - started
        return False

    train(spec, _execution(job, spec), session, should_stop=look_at_the_clock)
    yield Blocks(_blocks(_execution(job, spec).folder), first, _peak_mib(session.device))


def under_ray(job: Job) -> Iterator[Blocks]:
    """Our loop under Ray Train, on a cluster of its own; start-up is that of Ray, its processes and the run."""
    started = _process_started()
    from pipeline import ray_cluster, ray_train
    from pipeline.driver import Resources

    spec = run_spec(job)
    execution = _execution(job, spec)
    with ray_cluster.connected(Path.cwd()):
        ray_cluster.quiet()
        resources = Resources(workers=job.workers, threads=job.threads)
        controllers = ray_train.start_controllers(1)
        status = ray_train.train_under_ray(spec, execution, resources, ray_cluster.share(resources), controllers)
    if status != "finished":
        raise RuntimeError(f"{job.network} under Ray Train: {status}")
    blocks = _blocks(execution.folder)
    end = (execution.folder / TIMING).stat().st_mtime  # written with the last evaluation
    yield Blocks(blocks, end - sum(blocks[1:]) - blocks[0] * (1 - 1 / job.steps) - started, None)


def network_share(job: Job) -> Iterator[float]:
    """The share of the network in a step of ours, block by block.

    That is, forward and backward on a batch that is there already, beside whole steps. The two take turns, so that a
    machine that others use, too, does not favour one of them.
    """
    spec = run_spec(job)
    worker = Worker(spec, _execution(job, spec), LocalSession(job.device))
    worker.restore()
    images, labels = worker.stream.batch(0)
    iterations = count()

    def whole() -> None:
        worker.step(next(iterations))

    def network() -> None:
        _forward_backward(worker.bare, images, labels, worker.autocast)

    def seconds(step: Callable[[], None]) -> float:
        begun = time.monotonic()
        for _ in range(job.steps):
            step()
        if job.device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - begun

    for _ in range(job.blocks):
        yield seconds(network) / seconds(whole)


def _forward_backward(model: nn.Module, x: Tensor, y: Tensor, autocast: Callable[[], Any]) -> None:
    model.zero_grad(set_to_none=True)
    with autocast():
        logits = model(x)
    F.cross_entropy(logits.float(), y).backward()


def _execution(job: Job, spec: RunSpec) -> Execution:
    folder = job.folder / "runs" / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    return Execution(folder, job.folder / "prepared", None, "benchmark", threads=job.threads)


def _blocks(folder: Path) -> tuple[float, ...]:
    """Seconds of each epoch of a run of ours, its evaluation on ten images included."""
    ends = [row.seconds for row in read_rows(folder / TIMING, Timing)]
    return tuple(end - start for start, end in zip([0.0, *ends], ends, strict=False))


def _process_started() -> float:
    """When this process began, in seconds since 1970."""
    import psutil

    return float(psutil.Process(os.getpid()).create_time())


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def benchmark_training(
    networks: tuple[str, ...], device: str, blocks: int, seconds: float, report: Callable[[Rate], None]
) -> list[Rate]:
    """Measure every loop with every network.

    Args:
        blocks: of steps, the first of which does not count.
        seconds: after which one measurement is given up (TimeoutError).
        report: called with every row as soon as it is there.
    """
    rates: list[Rate] = []
    cores = available_cores()
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks:
            job = Job(network, device, STEPS[device], blocks, cores, 1, Path(scratch))
            random_images(job.folder / "prepared", job.steps * BATCH)
            shares = list(run_apart(network_share, job, seconds, huge_pages.ENVIRONMENT))
            base: Rate | None = None
            for loop, function, environment, changes in _variants(device, cores):
                (found,) = run_apart(function, replace(job, **changes), seconds, environment)
                rate = _rate(network, loop, replace(job, **changes), found, base)
                if loop == "ours, in-process":
                    rate = replace(rate, not_network=100 * (1 - statistics.median(shares[1:])))
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
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
