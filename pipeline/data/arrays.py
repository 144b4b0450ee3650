"""Arrays of a data set with a manifest: written by prepare and corrupt, verified and opened by training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.data.manifest import MANIFEST, checksum_of, has_checksum, read_manifest
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import replace_folder, sha256_file, write_json

__all__ = ["Arrays", "confusion_counts", "load", "read_manifest", "write_arrays"]

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


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Write `<name>.npy` for each array and the manifest into `folder`, replacing the complete folder.

    Returns:
        The manifest: `about`, then `checksum`, a SHA-256 over all files, and `files`, the SHA-256 of each.

    Raises:
        UserError: if the folder is a link, or has a file that is neither of these nor in its manifest.
    """
    own = {MANIFEST, *(f"{name}.npy" for name in arrays)}
    with suppress(UserError):
        own |= read_manifest(folder)["files"].keys()
    with replace_folder(folder, own) as fresh:
        for name, array in arrays.items():
            np.save(fresh / f"{name}.npy", array, allow_pickle=False)
        files = {f"{name}.npy": sha256_file(fresh / f"{name}.npy") for name in arrays}
        manifest = {**about, "checksum": checksum_of(files), "files": files}
        write_json(fresh / MANIFEST, manifest)
    return manifest


def load(prepared: Path, noisy: Path | None = None) -> Arrays:
    """Open a prepared folder and, if given, a folder of noisy labels made for it.

    Every file is verified against its checksum, which takes 0.2 s for CIFAR-10.

    Raises:
        UserError: for files that are missing, unreadable, damaged, or do not belong together.
    """
    manifest, arrays = _open(prepared, PREPARED, "prepare", ("image_shape", "train_images", "test_images", "classes"))
    shape, classes = tuple(manifest["image_shape"]), tuple(manifest["classes"])
    for split in ("train", "test"):
        count = manifest[f"{split}_images"]
        _expect(prepared, arrays, f"{split}_images", (count, *shape), np.uint8)
        _expect_labels(prepared, arrays, f"{split}_labels", count, len(classes))
    _expect(prepared, arrays, "mean", shape, np.float32)
    noise_checksum = None
    if noisy is not None:
        arrays["train_labels"], noise_checksum = _noisy_labels(
            noisy, manifest["checksum"], arrays["train_labels"], len(classes)
        )
    return Arrays(**arrays, classes=classes, checksum=manifest["checksum"], noise_checksum=noise_checksum)


def _noisy_labels(noisy: Path, base: str, clean: NDArray[np.int64], classes: int) -> tuple[NDArray[np.int64], str]:
    manifest, arrays = _open(noisy, NOISY, "corrupt", ("base_checksum", "matrix", "flipped"))
    if manifest["base_checksum"] != base:
        raise UserError(f"{noisy}: these noisy labels were made for other prepared data; run corrupt again")
    _expect_labels(noisy, arrays, "labels", len(clean), classes)
    _expect(noisy, arrays, "flipped", clean.shape, np.bool_)
    labels: NDArray[np.int64] = arrays["labels"]
    found = {"matrix": confusion_counts(clean, labels, classes).tolist(), "flipped": int((labels != clean).sum())}
    for key, value in found.items():
        if manifest[key] != value:  # the checksums are those of the arrays; this number is in the manifest alone
            raise UserError(f"{noisy / MANIFEST}: {key} is not that of the labels; run corrupt again")
    return labels, manifest["checksum"]


def confusion_counts(clean: NDArray[np.int64], noisy: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count how often each clean label (row) became each label (column): int64 [classes, classes]."""
    return np.bincount(clean * classes + noisy, minlength=classes**2).reshape(classes, classes)


def _open(
    folder: Path, names: Sequence[str], stage: str, needed: Sequence[str]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the manifest and the named arrays, memory-mapped, after their checksums have been verified."""
    manifest, arrays = read_manifest(folder, stage, needed), {}
    if sorted(manifest["files"]) != sorted(f"{name}.npy" for name in names):
        raise UserError(f"{folder / MANIFEST}: files are not {', '.join(names)}; run {stage} again")
    for name in names:
        path = folder / f"{name}.npy"
        if not has_checksum(path, manifest["files"][path.name]):
            raise UserError(f"{path}: missing, or without the checksum in the manifest; run {stage} again")
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise UserError(f"{path}: not an array ({one_line(error)}); run {stage} again") from None
    return manifest, arrays


def _expect(folder: Path, arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        found, expected = f"{array.dtype} {list(array.shape)}", f"{np.dtype(dtype)} {list(shape)}"
        raise UserError(f"{folder / name}.npy: {found}, expected {expected}")


def _expect_labels(folder: Path, arrays: dict[str, NDArray[Any]], name: str, count: int, classes: int) -> None:
    _expect(folder, arrays, name, (count,), np.int64)
    if count and not 0 <= arrays[name].min() <= arrays[name].max() < classes:
        raise UserError(f"{folder / name}.npy: labels beyond the {classes} classes 0 to {classes - 1}")
