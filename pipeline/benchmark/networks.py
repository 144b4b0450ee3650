"""How fast every network of the paper is on the hardware at hand: one image evaluated, and steps of training.

Each network is measured in a process of its own: one that does not fit in memory or time is a row that says so.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from models import create_model, find_network, list_models
from pipeline.benchmark.energy import energy_counter
from pipeline.benchmark.hardware import hardware_name, hardware_slug
from pipeline.benchmark.table import MEASURED, OUT_OF_MEMORY, OUT_OF_TIME, Speed, extend_table, read_table
from pipeline.runs.spec import Protocol
from pipeline.settings.paper import load_paper
from pipeline.training.optimiser import SGD
from pipeline.utils.errors import UserError
from pipeline.utils.git import origin
from pipeline.utils.subprocesses import DiedError, run_apart

FOLDER: Final = Path("benchmarks") / "networks"
MODES: Final = ("evaluation", "training")
SIZES: Final = {"attention92": (224, 320), "preresnet200": (224, 320), "attentioninception56": (299,)}
"""Image sizes in pixels where they are not a network's own: those of the paper's test crops (Table 7)."""


def _protocol() -> Protocol:
    """Return the paper's protocol on CIFAR; only its optimiser matters here."""
    settings = load_paper().protocols["cifar10"].settings
    own = {field.name: settings[field.name] for field in fields(Protocol) if field.name in settings}
    return Protocol(**own, batch_norm_group=own["batch_size"])


MEASURED_SECONDS, MOST_REPEATS = 3.0, 100
"""Quick steps are repeated for about this long, but not more often than that."""


@dataclass(frozen=True)
class Effort:
    """How much is measured by default.

    Batches of 64 and 32 images are the paper's and its authors' per card; a CPU takes smaller ones, so that all
    networks are measured in minutes.
    """

    warm_up: int
    repeats: int
    cifar_batch: int
    imagenet_batch: int


EFFORTS: Final = {"cpu": Effort(1, 7, 16, 2), "cuda": Effort(10, 30, 64, 32)}


@dataclass(frozen=True)
class Settings:
    """How networks are measured; `repeats` and `batch_size` of None are the device's own (see `EFFORTS`)."""

    device: str
    threads: int
    precision: str = "float32"
    channels_last: bool = False
    repeats: int | None = None
    batch_size: int | None = None

    @property
    def effort(self) -> Effort:
        """The defaults of the device, with the given number of repeats."""
        effort = EFFORTS[torch.device(self.device).type]
        return effort if self.repeats is None else replace(effort, repeats=self.repeats)


@dataclass(frozen=True)
class Case:
    """One network at one image size (height and width in pixels)."""

    network: str
    image_size: int
    settings: Settings
    commit: str

    def batch_size(self, mode: str) -> int:
        """Images of a step."""
        if mode == "evaluation":
            return 1
        effort = self.settings.effort
        own = effort.cifar_batch if self.network.startswith("cifar_") else effort.imagenet_batch
        return self.settings.batch_size or own

    def row(
        self,
        mode: str,
        status: str,
        seconds: list[float] | None = None,
        peak_mib: float | None = None,
        joules: float | None = None,
    ) -> Speed:
        """The row of the table; `seconds` are those of each repeated step, `joules` those of all of them together."""
        settings, batch = self.settings, self.batch_size(mode)
        median = statistics.median(seconds) if seconds else None
        return Speed(
            network=self.network,
            image_size=self.image_size,
            mode=mode,
            batch_size=batch,
            precision=settings.precision,
            memory_format="channels_last" if settings.channels_last else "contiguous",
            threads=settings.threads,
            status=status,
            median_ms=None if median is None else 1000 * median,
            iqr_ms=1000 * interquartile_range(seconds) if seconds else None,
            images_per_second=None if median is None else batch / median,
            peak_memory_mib=peak_mib,
            warm_up=settings.effort.warm_up,
            repeats=len(seconds or ()),
            hardware=hardware_name(torch.device(settings.device)),
            torch=torch.__version__,
            commit=self.commit,
            our_reading=find_network(self.network).our_reading,
            joules_per_image=None if joules is None or not seconds else joules / (batch * len(seconds)),
        )


def paper_sizes(network: str) -> tuple[int, ...]:
    """The image sizes, in pixels, that the paper uses a network at."""
    return SIZES.get(network, (find_network(network).image_size,))


def interquartile_range(values: list[float]) -> float:
    """Third quartile less the first; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def benchmark_networks(
    settings: Settings,
    pattern: str = "*",
    seconds: float = 180.0,
    folder: Path = FOLDER,
    report: Callable[[Speed], None] = lambda row: None,
) -> Path:
    """Measure the networks whose names match a shell pattern; the path of this hardware's table, extended by them.

    seconds: that one network may take at one image size, all in all.
    report: called with each row once it is in the table.

    Raises UserError for a pattern that matches nothing, and for a table that is there and damaged.
    """
    names = list_models(pattern)
    if not names:
        raise UserError(f"--only {pattern!r}: matches no network; there are {', '.join(list_models())}")
    path = folder / f"{hardware_slug(hardware_name(torch.device(settings.device)))}.csv"
    if path.exists():
        read_table(path)  # a damaged one is found before anything is measured
    made_by = origin()
    commit = f"{(made_by.commit or 'unknown')[:10]}{'+' if made_by.dirty else ''}"
    for name in names:
        for size in paper_sizes(name):
            for row in _measure_apart(Case(name, size, settings, commit), seconds):
                extend_table(path, [row])
                report(row)
    return path


def _measure_apart(case: Case, seconds: float) -> Iterator[Speed]:
    """One row for each mode, whatever happens to the process that measures them."""
    missing = list(MODES)
    try:
        for row in run_apart(_measure_alone, case, seconds):
            missing.remove(row.mode)
            yield row
    except TimeoutError:
        status = OUT_OF_TIME
    except DiedError as death:
        status = str(death)
    for mode in missing:
        yield case.row(mode, status)


def _measure_alone(case: Case) -> Iterator[Speed]:
    """`measure` in a process that does nothing else, with PyTorch's own settings for speed, but for TF32."""
    torch.set_num_threads(case.settings.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    yield from measure(case)


def measure(case: Case) -> Iterator[Speed]:
    """Measure one network in this process: a row for each mode."""
    device = torch.device(case.settings.device)
    for mode in MODES:
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            counter = energy_counter(device) if mode == "training" else None
            seconds, joules = _time(_step(case, mode, device), device, case.settings.effort, counter)
            peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
            row = case.row(mode, MEASURED, seconds, peak, joules)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            row = case.row(mode, OUT_OF_MEMORY)
        yield row


def _is_out_of_memory(error: Exception) -> bool:
    """The processor's allocator has no exception of its own, only a message."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _step(case: Case, mode: str, device: torch.device) -> Callable[[], None]:
    """One step, ready to be repeated, on random images in float32."""
    settings, batch = case.settings, case.batch_size(mode)
    classes = find_network(case.network).num_classes
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    model = create_model(case.network, classes, device=device).to(memory_format=memory_format)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, case.image_size, case.image_size, generator=generator)
    images = images.to(device).contiguous(memory_format=memory_format)
    labels = (torch.arange(batch) % classes).to(device)

    def autocast() -> AbstractContextManager[object]:
        bfloat16 = settings.precision == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else contextlib.nullcontext()

    if mode == "evaluation":
        return _evaluation(model, images, autocast)
    optimiser = SGD(model, _protocol())

    def train() -> None:
        optimiser.zero_grad()
        with autocast():
            scores = model(images)
        F.cross_entropy(scores.float(), labels).backward()
        # The rate changes no time, but a network that has learnt its one batch does: its gradients fade to subnormal
        # numbers, with which a processor is up to fifty times slower.
        optimiser.step(learning_rate=0.0)

    return train


def _evaluation(
    model: nn.Module, images: torch.Tensor, autocast: Callable[[], AbstractContextManager[object]]
) -> Callable[[], None]:
    _settle(model, images)
    model.eval()

    def evaluate() -> None:
        with torch.inference_mode(), autocast():
            model(images)

    return evaluate


def _settle(model: nn.Module, images: torch.Tensor) -> None:
    """Give batch norm the statistics of an image: with its initial ones, activations grow from unit to unit."""
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            part.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.cat([images, images.flip(-1)]))  # two, since one has no variance after the pooling


def _time(
    step: Callable[[], None], device: torch.device, effort: Effort, energy: Callable[[], float] | None = None
) -> tuple[list[float], float | None]:
    """Seconds of each repeated step, and what `energy` has counted during all of them."""
    for _ in range(effort.warm_up):
        step()
    _wait(device)
    before = energy() if energy else 0.0
    seconds: list[float] = []
    while len(seconds) < effort.repeats or (sum(seconds) < MEASURED_SECONDS and len(seconds) < MOST_REPEATS):
        _wait(device)
        start = time.perf_counter()
        step()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds, energy() - before if energy else None


def _wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
