"""Decoded images become the arrays that training reads, in canonical order, with statistics.

A prepared folder holds train_images.npy and test_images.npy (uint8 [N, H, W, 3]), train_labels.npy and
test_labels.npy (int64 [N]), mean.npy (float32 [H, W, 3], the mean training image scaled to [0, 1]) and
manifest.json. Sums are taken in integers and divided once, so the bytes are equal on every machine.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import load, write_arrays
from pipeline.data.dataset import DataSet, Split
from pipeline.data.manifest import intact
from pipeline.data.source import load_source, verify_source

_WHITE = 255  # the pixel value that is scaled to 1.0
_BATCH = 4096  # images whose integer sums are taken at once


def prepare_arrays(dataset: DataSet, raw: Path, prepared: Path) -> dict[str, Any]:
    """Decode the fetched data in `raw` into `prepared`, unless they are there and intact; return the manifest."""
    source = load_source(dataset.name, raw)
    about = {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "image_shape": list(dataset.image_shape),
        "train_images": dataset.train_images,
        "test_images": dataset.test_images,
    }
    origin = {"raw_checksum": source.checksum()}
    if manifest := intact(prepared, about | origin, load):
        return manifest
    verify_source(source, raw)
    train, test = (canonical_order(split) for split in dataset.decode(source, raw))
    _check(dataset, train, dataset.train_images)
    _check(dataset, test, dataset.test_images)
    mean, channel_mean, channel_std = statistics(train.images)
    arrays: dict[str, NDArray[Any]] = {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
        "mean": mean,
    }
    return write_arrays(prepared, arrays, {**about, "channel_mean": channel_mean, "channel_std": channel_std, **origin})


def canonical_order(split: Split) -> Split:
    """Sort by the SHA-256 of the pixels, then by label, so that the order of the source has no effect."""
    digests = [hashlib.sha256(image.tobytes()).digest() for image in split.images]
    order = sorted(range(len(digests)), key=lambda k: (digests[k], split.labels[k]))
    return Split(np.ascontiguousarray(split.images[order]), split.labels[order])


def statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[float], list[float]]:
    """Return the mean image, float32 [H, W, 3], and mean and population standard deviation by channel, in [0, 1]."""
    count = len(images)
    sums = np.zeros(images.shape[1:], np.int64)
    squares = np.zeros(images.shape[-1], np.int64)
    for start in range(0, count, _BATCH):
        batch = images[start : start + _BATCH].astype(np.int64)
        sums += batch.sum(axis=0)
        squares += np.square(batch).sum(axis=(0, 1, 2))
    values = count * images.shape[1] * images.shape[2]  # of one channel
    means, deviations = [], []
    for total, square in zip(sums.sum(axis=(0, 1)).tolist(), squares.tolist(), strict=True):
        means.append(total / (values * _WHITE))
        deviations.append(math.sqrt((values * square - total**2) / (values * _WHITE) ** 2))
    return (sums / (count * _WHITE)).astype(np.float32), means, deviations


def _check(dataset: DataSet, split: Split, count: int) -> None:
    """Assert what `decode` of a data set promises."""
    assert split.images.shape == (count, *dataset.image_shape) and split.images.dtype == np.uint8
    assert split.labels.shape == (count,) and split.labels.dtype == np.int64
    assert split.labels.min() >= 0 and split.labels.max() < len(dataset.classes)
