"""This project's image loader beside two others: images a second at the same augmentation on the same cores.

The usual one is torchvision's ImageFolder, read by the worker processes of a PyTorch DataLoader, with PIL and
torchvision's transforms; Ray Data does the same in tasks of Ray. All make training batches of 224x224 pixels from the
same JPEG files: crops of varied scale and aspect, flips, AlexNet's colour augmentation and normalisation, in float32 on
the device. No network is at work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.benchmark.rates import check_blocks, median_and_spread
from pipeline.data.image_folder import SPLITS, list_images, record_listing
from pipeline.data.packing import prepare_images
from pipeline.data.shards import CHANNEL_MEAN, CHANNEL_STD, open_image_shards
from pipeline.data.source import save_source
from pipeline.training import huge_pages
from pipeline.training.crops import AREA, ASPECT
from pipeline.training.image_batches import COMPONENTS, EIGENVALUES, ImageStream
from pipeline.utils.subprocesses import run_apart

FOLDER: Final = Path("benchmarks") / "loading"
CROP, BATCH, COLOUR, CLASSES = 224, 64, 0.1, 4
SIZES: Final = ((375, 500), (500, 375), (333, 500), (1200, 1600))
"""Height and width of the images: three that are usual in ImageNet, and a large one; one in eight is large."""


@dataclass(frozen=True)
class Job:
    """What one process measures: batches of a block, blocks, and cores, for the images below `folder`."""

    folder: Path
    device: str
    cores: int
    batches: int
    blocks: int


@dataclass(frozen=True)
class Rate:
    """One row of the table.

    Attributes:
        images_per_second: median over the blocks but the first.
        spread: interquartile range of it, in percent.
        to_usual: images a second over those of the usual loader.
    """

    loader: str
    cores: int
    images_per_second: float
    spread: float
    to_usual: float | None


def write_images(folder: Path, images: int) -> None:
    """Cut scikit-learn's two sample images into a tree of JPEG files of the sizes of ImageNet's, and pack them.

    Args:
        images: in each split; a multiple of `CLASSES`.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    draw = np.random.Generator(np.random.PCG64(0))
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    for split in SPLITS:
        for k in range(images):
            height, width = SIZES[3] if k % 8 == 0 else SIZES[k % 3]
            left, top = (int(v) for v in draw.integers(0, 40, 2))
            part = whole[k % 2].resize((width, height), box=(left, top, left + 600, top + 387))
            path = folder / "tree" / split / f"class{k % CLASSES}" / f"{k:05d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            part.save(path, "JPEG", quality=90)
    raw = folder / "raw"
    counts = dict.fromkeys(SPLITS, images)
    files = list_images(folder / "tree", CLASSES, counts)
    save_source(record_listing("benchmark", str((folder / "tree").absolute()), files, raw), raw)
    prepare_images("benchmark", raw, folder / "prepared")


def ours(job: Job) -> Iterator[list[float]]:
    """Seconds of each block of batches with our loader."""
    torch.set_num_threads(job.cores)
    stream = ImageStream(
        open_image_shards(job.folder / "prepared"),
        seed=0,
        batch_size=BATCH,
        crop=CROP,
        flip=True,
        colour=COLOUR,
        iterations=job.batches * job.blocks,
        pool=ThreadPoolExecutor(job.cores),
        device=job.device,
    )
    yield _timed((stream.batch(k) for k in range(job.batches * job.blocks)), job)


class Colour:
    """AlexNet's colour augmentation of one image, float32 [3, H, W], as a transform."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return the image with its channels shifted at random."""
        strengths = torch.randn(3) * COLOUR * EIGENVALUES.float()
        return image + (COMPONENTS.float() * strengths).sum(1)[:, None, None]


def _transform() -> Callable[[Any], Tensor]:
    """The augmentation of one PIL image by torchvision, to float32 [3, CROP, CROP]."""
    from torchvision import transforms

    steps = [
        transforms.RandomResizedCrop(CROP, scale=AREA, ratio=ASPECT),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        Colour(),
        transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD),
    ]
    composed: Callable[[Any], Tensor] = transforms.Compose(steps)
    return composed


def usual(job: Job) -> Iterator[list[float]]:
    """Seconds of each block of batches with ImageFolder and DataLoader, one worker process for each core."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import datasets

    torch.set_num_threads(job.cores)
    dataset = datasets.ImageFolder(job.folder / "tree" / "train", _transform())
    images = job.batches * job.blocks * BATCH
    loader: Any = DataLoader(
        dataset,
        BATCH,
        sampler=RandomSampler(dataset, replacement=True, num_samples=images),
        num_workers=job.cores,
        pin_memory=job.device == "cuda",
    )
    device = torch.device(job.device)
    yield _timed(((x.to(device), y.to(device)) for x, y in loader), job)


def ray_data(job: Job) -> Iterator[list[float]]:
    """Seconds of each block of batches with Ray Data, on a Ray of its own with a task at once for each core."""
    from torchvision import datasets

    from pipeline.launch import cluster

    dataset = datasets.ImageFolder(job.folder / "tree" / "train", _transform())
    drawn = np.random.Generator(np.random.PCG64(0)).integers(0, len(dataset), job.batches * job.blocks * BATCH)
    device = torch.device(job.device)

    def decode(batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        torch.set_num_threads(1)  # of a task, which has one core
        images, labels = zip(*(dataset[index] for index in batch["item"]), strict=True)
        return {"image": torch.stack(images).numpy(), "label": np.asarray(labels)}

    with cluster.connected(Path.cwd()):
        import ray.data

        cluster.quiet()
        ray.data.DataContext.get_current().enable_progress_bars = False
        decoded = ray.data.from_items(drawn.tolist()).map_batches(decode, batch_size=BATCH)
        batches = decoded.iter_torch_batches(batch_size=BATCH)
        yield _timed(((batch["image"].to(device), batch["label"].to(device)) for batch in batches), job)


def _timed(batches: Iterator[tuple[Tensor, Tensor]], job: Job) -> list[float]:
    seconds = []
    for _ in range(job.blocks):
        begun = time.monotonic()
        for _ in range(job.batches):
            images, labels = next(batches)
            assert images.shape == (BATCH, 3, CROP, CROP) and len(labels) == BATCH
        if job.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - begun)
    return seconds


LOADERS: Final[dict[str, tuple[Callable[[Job], Iterator[list[float]]], dict[str, str]]]] = {
    "ImageFolder + DataLoader + PIL": (usual, {}),
    "ours": (ours, huge_pages.ENVIRONMENT),  # as a run of ours has them
    "ours, without huge pages": (ours, {}),
    "Ray Data + PIL": (ray_data, {}),
}
"""The loaders, the usual one first, and the environment of their processes."""


def benchmark_loading(job: Job, seconds: float, report: Callable[[Rate], None]) -> list[Rate]:
    """Measure every loader in a process of its own, one after the other.

    Args:
        seconds: after which one measurement is given up (TimeoutError).
        report: called with every row as soon as it is there.
    """
    check_blocks(job.blocks)
    write_images(job.folder, 4 * BATCH)
    rates: list[Rate] = []
    for name, (loader, environment) in LOADERS.items():
        (found,) = run_apart(loader, job, seconds, environment)
        median, spread = median_and_spread(job.batches * BATCH, found)
        base = rates[0].images_per_second if rates else None
        rates.append(Rate(name, job.cores, median, spread, base and median / base))
        report(rates[-1])
    return rates


def as_line(rate: Rate) -> str:
    """A row to read."""
    times = "" if rate.to_usual is None else f", {rate.to_usual:.2f} times the usual one"
    return (
        f"{rate.loader}: {rate.images_per_second:.0f} ± {rate.spread / 2:.0f} % images/s on {rate.cores} cores{times}"
    )
