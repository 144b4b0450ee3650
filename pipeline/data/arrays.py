"""What training reads: the prepared arrays of a data set, with clean or with noisy training labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.data.manifest import MANIFEST, open_arrays, read_manifest
from pipeline.utils.errors import UserError

__all__ = ["Arrays", "load", "read_manifest"]

PREPARED = ("train_images", "train_labels", "test_images", "test_labels", "mean")
NOISY = ("labels", "flipped")


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set in read-only memory maps.

    Attributes:
        train_images, test_images: uint8 [N, H, W, 3].
        train_labels, test_labels: int64 [N]; the training labels are noisy ones where those were asked for.
        mean: float32 [H, W, 3], mean training image scaled to [0, 1].
        classes: name of each label.
        checksum: of the prepared arrays.
        noise_checksum: of the noisy labels, None for clean ones.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    mean: NDArray[np.float32]
    classes: tuple[str, ...]
    checksum: str
    noise_checksum: str | None


def load(prepared: Path, noisy: Path | None = None) -> Arrays:
    """Open a prepared folder and, if given, a folder of noisy labels made for it.

    Every file is verified against its checksum (0.2 s for CIFAR-10); UserError for what is missing, damaged or
    does not belong together.
    """
    manifest, arrays = _open(prepared, PREPARED, "prepare")
    try:
        shape = tuple(manifest["image_shape"])
        train, test = manifest["train_images"], manifest["test_images"]
        classes, checksum = tuple(manifest["classes"]), str(manifest["checksum"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{prepared / MANIFEST}: {error} is missing or wrong; prepare the data again") from None
    _expect(prepared, arrays, "train_images", (train, *shape), np.uint8)
    _expect(prepared, arrays, "test_images", (test, *shape), np.uint8)
    _expect(prepared, arrays, "mean", shape, np.float32)
    _expect_labels(prepared, arrays, "train_labels", train, len(classes))
    _expect_labels(prepared, arrays, "test_labels", test, len(classes))
    noise_checksum = None
    if noisy is not None:
        arrays["train_labels"], noise_checksum = _noisy_labels(noisy, checksum, train, len(classes))
    return Arrays(**arrays, classes=classes, checksum=checksum, noise_checksum=noise_checksum)


def _noisy_labels(noisy: Path, base: str, count: int, classes: int) -> tuple[NDArray[np.int64], str]:
    manifest, arrays = _open(noisy, NOISY, "corrupt")
    if manifest.get("base_checksum") != base:
        raise UserError(f"{noisy}: these noisy labels were made for other prepared data; run corrupt again")
    _expect_labels(noisy, arrays, "labels", count, classes)
    _expect(noisy, arrays, "flipped", (count,), np.bool_)
    return arrays["labels"], manifest["checksum"]


def _open(folder: Path, names: tuple[str, ...], stage: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: no {MANIFEST} there; run {stage} first")
    try:
        return open_arrays(folder, names)
    except UserError as error:
        raise UserError(f"{error}; run {stage} again") from None


def _expect(folder: Path, arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        found, expected = f"{array.dtype} {list(array.shape)}", f"{np.dtype(dtype)} {list(shape)}"
        raise UserError(f"{folder / name}.npy: {found}, expected {expected}")


def _expect_labels(folder: Path, arrays: dict[str, NDArray[Any]], name: str, count: int, classes: int) -> None:
    _expect(folder, arrays, name, (count,), np.int64)
    if count and not 0 <= arrays[name].min() <= arrays[name].max() < classes:
        raise UserError(f"{folder / name}.npy: labels beyond the {classes} classes 0 to {classes - 1}")
