"""Handwritten digits: the small data set in the package of scikit-learn."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import DataSet, Split
from pipeline.data.source import Source, record_files
from pipeline.utils.errors import UserError
from pipeline.utils.files import write_atomic

_FILE = "digits.npy"
_ROWS = (1797, 65)  # 8x8 pixels from 0 to 16, and the label
_SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"
_SMALL = 8


class Digits(DataSet):
    """1,797 grey 8x8 images of the digits 0 to 9, enlarged to 16x16 with three equal channels.

    The split is stratified and depends on the pixels alone: within each class, the images whose SHA-256
    is smallest are the test images, as many as the class's share of 360.
    """

    name = "digits"
    classes = tuple("0123456789")
    image_shape = (2 * _SMALL, 2 * _SMALL, 3)
    train_images = 1437
    test_images = 360

    def fetch(self, source: str, raw: Path) -> Source:
        """Copy scikit-learn's images into one small file; `source` can only be "official"."""
        if source != "official":
            raise UserError(f"source {source!r} of digits: allowed is 'official', scikit-learn's own copy")
        from sklearn.datasets import load_digits

        bunch = load_digits()
        rows = np.column_stack([bunch.data, bunch.target]).astype(np.uint8)
        if _checksum(rows) != _SHA256:
            raise UserError(
                "scikit-learn's digits are not the 1,797 known images; install another version of scikit-learn"
            )
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        write_atomic(raw / _FILE, buffer.getvalue())
        return Source(self.name, "scikit-learn", ".", record_files(raw, [_FILE]))

    def decode(self, source: Source, raw: Path) -> tuple[Split, Split]:
        """Return both splits of the fetched file."""
        path = source.folder(raw) / _FILE
        try:
            rows = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            rows = np.empty(0, np.uint8)
        if rows.shape != _ROWS or rows.dtype != np.uint8 or _checksum(rows) != _SHA256:
            raise UserError(f"{path}: not the digits of scikit-learn; fetch digits again")
        small, labels = rows[:, :-1].reshape(-1, _SMALL, _SMALL), rows[:, -1].astype(np.int64)
        test = self._is_test(small, labels)
        images = enlarge(small)
        return Split(images[~test], labels[~test]), Split(images[test], labels[test])

    def _is_test(self, small: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        digests = [hashlib.sha256(image.tobytes()).digest() for image in small]
        test = np.zeros(len(labels), np.bool_)
        shares = stratified_counts(np.bincount(labels).tolist(), self.test_images)
        for label, share in enumerate(shares):
            members = sorted(np.flatnonzero(labels == label).tolist(), key=digests.__getitem__)
            test[members[:share]] = True
        return test


def _checksum(rows: NDArray[np.uint8]) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()


def stratified_counts(sizes: list[int], total: int) -> list[int]:
    """Divide `total` in proportion to `sizes`, by largest remainder (ties: the first class)."""
    available = sum(sizes)
    shares = [size * total // available for size in sizes]
    remainders = [size * total % available for size in sizes]
    order = sorted(range(len(sizes)), key=lambda k: -remainders[k])
    for k in order[: total - sum(shares)]:
        shares[k] += 1
    return shares


def enlarge(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge [N, h, w] with values 0..16 bilinearly to uint8 [N, 2h, 2w, 3] with values 0..255.

    A new pixel lies a quarter of an old one from the nearest centre (align_corners=False): weights 3/4 and 1/4
    in each direction. In integers, so that the result is the same on every machine.
    """
    wide = _double(_double(small.astype(np.int64), axis=1), axis=2)  # 16 times the value: 0..256
    grey = (wide * 255 + 128) // 256
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def _double(values: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Double the values along `axis`: each is 3 times the nearest plus the next nearest; edges repeat."""
    values = np.moveaxis(values, axis, -1)
    padded = np.concatenate([values[..., :1], values, values[..., -1:]], axis=-1)
    doubled = np.stack([3 * values + padded[..., :-2], 3 * values + padded[..., 2:]], axis=-1)
    return np.moveaxis(doubled.reshape(*values.shape[:-1], -1), -1, axis)
