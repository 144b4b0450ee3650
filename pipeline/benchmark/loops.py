"""Training loops to be timed: ours, in-process and under Ray Train, and the one that a user would write.

Every loop trains the same network on the same number of random images of the size of CIFAR's, in batches of `BATCH`,
and is to have a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from models import create_model
from pipeline.data.arrays import write_arrays
from pipeline.runs.execution import Execution
from pipeline.runs.records import TIMING, Position, Timing, read_rows
from pipeline.runs.spec import DataSpec, NetworkSpec, Protocol, RunSpec
from pipeline.training.loop import Worker, train
from pipeline.training.session import LocalSession
from pipeline.training.state import Snapshot

BATCH, SIZE, CLASSES = 64, 32, 10


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
        protocol=Protocol(
            iterations=steps,
            batch_size=BATCH,
            learning_rate=0.01,
            milestones=(steps,),
            gamma=0.1,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            padding=4,
            flip=True,
            batch_norm_group=BATCH,
        ),
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


def ours_by_the_clock(job: Job) -> Iterator[list[float]]:
    """Our loop in this process: when each block began but the first, by the clock that all processes share."""
    steps: list[float] = []

    def look_at_the_clock() -> bool:
        steps.append(time.monotonic())
        return False

    train(run_spec(job), _execution(job, run_spec(job)), LocalSession(job.device), should_stop=look_at_the_clock)
    yield steps[job.steps :: job.steps]


def under_ray(job: Job) -> Iterator[Blocks]:
    """Our loop under Ray Train, on a cluster of its own; start-up is that of Ray, its processes and the run."""
    started = _process_started()
    from pipeline.launch import cluster, placement, ray_train
    from pipeline.runs.execution import Resources

    spec = run_spec(job)
    execution = _execution(job, spec)
    with cluster.connected(Path.cwd()):
        cluster.quiet()
        resources = Resources(job.workers, job.threads, "auto", max_parallel=None, max_failures=0)
        status = ray_train.train_under_ray(spec, execution, resources, placement.share(resources))
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


def checkpoints(job: Job) -> Iterator[float]:
    """Seconds of each of as many checkpoints as there are blocks.

    Nothing else goes on meanwhile. In a run only the copy of the state holds the next step up; the rest, which a thread
    does beside the steps, takes at most this much from them.
    """
    spec = run_spec(job, name="checkpoints")
    execution = _execution(job, spec)
    worker = Worker(spec, execution, LocalSession(job.device))
    worker.restore()
    worker.step(0)  # so that there is momentum
    for iteration in range(1, job.blocks + 1):
        begun = time.monotonic()
        Snapshot.take(spec.identity, worker.bare, worker.optimiser, Position(iteration)).write(execution.folder)
        yield time.monotonic() - begun


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
