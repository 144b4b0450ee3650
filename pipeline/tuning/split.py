"""Validation images, held out of the training set: a search never sees a test image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import prepared_folder
from pipeline.data.arrays import Arrays, load, write_arrays
from pipeline.data.digits import stratified_counts
from pipeline.data.manifest import intact
from pipeline.data.preparation import statistics
from pipeline.data.shards import has_image_shards
from pipeline.utils.errors import UserError

SHARE = 6  # one training image in so many is held out


def split_folder(data: Path, dataset: str) -> Path:
    """The folder of the split of a data set: ``tune/<dataset>`` under the data folder."""
    return data / "tune" / dataset


def hold_out(dataset: str, data: Path) -> dict[str, Any]:
    """Write a folder like a prepared one, whose test images are held-out training images; returns its manifest.

    One image in `SHARE` of every class is held out, chosen by a checksum of its pixels: the split depends on nothing
    but the data. The mean image is that of the images that remain for training. A split that is there already, intact
    and made from these data, is left alone.

    Raises:
        UserError: if the data are not prepared.
    """
    if has_image_shards(prepared_folder(data, dataset)):
        raise UserError(f"{dataset}: a search can hold out images of arrays only, not of shards")
    prepared, target = load(prepared_folder(data, dataset)), split_folder(data, dataset)
    if manifest := intact(target, {"base_checksum": prepared.checksum}, load):
        return manifest
    held = held_out(prepared.train_images, prepared.train_labels, len(prepared.classes))
    train = prepared.train_images[~held]
    mean, channel_mean, channel_std = statistics(train)
    arrays: dict[str, NDArray[Any]] = {
        "train_images": train,
        "train_labels": prepared.train_labels[~held],
        "test_images": prepared.train_images[held],
        "test_labels": prepared.train_labels[held],
        "mean": mean,
    }
    return write_arrays(target, arrays, _about(dataset, prepared, held, channel_mean, channel_std))


def _about(
    dataset: str, prepared: Arrays, held: NDArray[np.bool_], channel_mean: list[float], channel_std: list[float]
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "classes": list(prepared.classes),
        "image_shape": list(prepared.train_images.shape[1:]),
        "train_images": int((~held).sum()),
        "test_images": int(held.sum()),
        "channel_mean": channel_mean,
        "channel_std": channel_std,
        "held_out": f"one training image in {SHARE}, in place of the test images",
        "base_checksum": prepared.checksum,
    }


def held_out(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
    """Which of the images [N, H, W, C] with labels [N] are held out: bool [N], stratified by class.

    Within a class they are the images whose salted SHA-256 is smallest. (The salt matters: the test images of digits
    were chosen by the plain one.)
    """
    digests = [hashlib.sha256(b"validation/" + image.tobytes()).digest() for image in images]
    held = np.zeros(len(labels), np.bool_)
    shares = stratified_counts(np.bincount(labels, minlength=classes).tolist(), len(labels) // SHARE)
    for label, share in enumerate(shares):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=digests.__getitem__)
        held[members[:share]] = True
    return held
