"""A probe of about a minute: how fast the networks of a plan train on the hardware at hand.

Each network takes steps of its own size, precision and memory format on a batch of noise. Reading of data is left out,
so that the estimated time is a lower bound where the CPU cannot keep up with the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.launch.estimate import Throughput
from pipeline.runs.spec import RunSpec
from pipeline.settings.plan import PASSES
from pipeline.training import huge_pages
from pipeline.utils.subprocesses import DiedError, run_apart

if TYPE_CHECKING:
    from pipeline.launch.driver import Driver

SECONDS = 60.0
WARM_UP = 2  # steps that do not count
LIMIT = 600.0  # seconds after which a probe is given up


@dataclass(frozen=True)
class Job:
    """The task of the probing process.

    Attributes:
        specs: one run for each network.
        workers, threads: as each run has them.
        seconds: for each network.
    """

    specs: tuple[RunSpec, ...]
    workers: int
    threads: int
    seconds: float


@dataclass(frozen=True)
class Probed:
    """Training images per second of one network on a device; None where its batch does not fit into memory."""

    network: str
    device: str
    images_per_second: float | None


def probe(driver: Driver, specs: Sequence[RunSpec], seconds: float = SECONDS) -> list[Throughput]:
    """Measure the throughput of every network of some runs, in a process of its own; return none if that dies."""
    by_network = {spec.network.name: spec for spec in specs}
    if not by_network:
        return []
    resources = driver.resources
    job = Job(tuple(by_network.values()), resources.workers, resources.threads, seconds / len(by_network))
    found: dict[str, Throughput] = {}
    try:
        for probed in run_apart(measure, job, LIMIT, huge_pages.ENVIRONMENT):
            throughput = found.setdefault(probed.device, Throughput(probed.device, source="the throughput of a probe"))
            if probed.images_per_second is not None:
                multiply_adds = driver.plan.runs[by_network[probed.network].name].cost.multiply_adds
                cores = 1 if throughput.unit == "GPU" else resources.threads
                speed = PASSES * multiply_adds * probed.images_per_second / cores
                throughput.measured.setdefault(probed.network, []).append(speed)
    except (DiedError, TimeoutError):
        pass  # keep what was measured before
    return [throughput for throughput in found.values() if throughput.measured]


def measure(job: Job) -> Iterator[Probed]:
    """Train each network for a while, on the GPU if there is one, and yield its throughput."""
    import torch

    from pipeline.training import environment

    environment.make_deterministic(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = environment.device_name(device)
    for spec in job.specs:
        try:
            speed = _images_per_second(spec, job, device)
        except torch.OutOfMemoryError:
            speed = None
        yield Probed(spec.network.name, name, speed)


def _images_per_second(spec: RunSpec, job: Job, device: object) -> float:
    """Of one worker; a step is one batch-norm group forward and backward, and a step of the optimiser."""
    import torch
    from torch.nn import functional as F

    from pipeline.training import environment
    from pipeline.training.groups import plan_groups
    from pipeline.training.loop import make_network
    from pipeline.training.optimiser import SGD

    assert isinstance(device, torch.device)
    images = plan_groups(spec.protocol.batch_size, spec.protocol.batch_norm_group, job.workers).micro_batch
    size = spec.data.image_size
    model = make_network(spec).to(device).train()
    optimiser, autocast = SGD(model, spec.protocol), environment.autocast(spec, device)
    forward = environment.compiled(model) if spec.compile else model
    x = torch.rand(images, 3, size, size, device=device)
    if spec.channels_last:
        x = x.to(memory_format=torch.channels_last)
    y = torch.zeros(images, dtype=torch.int64, device=device)
    steps, begun = -WARM_UP, time.monotonic()
    while steps < 1 or time.monotonic() - begun < job.seconds:
        if steps == 0:
            begun = time.monotonic()
        optimiser.zero_grad()
        with autocast():
            logits = forward(x)
        F.cross_entropy(logits.float(), y).backward()
        optimiser.step(1e-6)
        if device.type == "cuda":
            torch.cuda.synchronize()
        steps += 1
    return images * steps / (time.monotonic() - begun)
