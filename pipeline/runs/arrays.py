"""The files of a run that hold arrays: attention masks of eight test images, and which test images it got wrong."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runs.reading import DamagedError, read_verified
from pipeline.runs.records import MASKS, MISTAKES
from pipeline.utils.errors import one_line
from pipeline.utils.files import write_atomic

MAP = re.compile(r"s(\d+)m(\d+)_(mask|channel_mask|channel_before|channel_after)")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``masks.npz`` or ``mistakes.npz``; equal arrays give equal bytes."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_atomic(path, content.getvalue())


@dataclass(frozen=True, eq=False)
class Masks:
    """What ``masks.npz`` has of a network: eight test images, and maps over them by stage and attention module.

    Attributes:
        images: uint8 [n, H, W, 3].
        maps: float16 [n, h, w] by name, e.g. "s1m1_mask"; none of a network without attention.
    """

    images: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float16]]

    @property
    def are_finite(self) -> bool:
        """Whether every mask is finite and no feature is NaN; if not, the run has diverged.

        Infinite features are not: older runs have them where a feature is beyond the range of float16.
        """
        masks = [array for name, array in self.maps.items() if name.endswith("mask")]
        return all(np.isfinite(array).all() for array in masks) and not any(
            np.isnan(array).any() for array in self.maps.values()
        )

    @classmethod
    def read(cls, folder: Path) -> Masks:
        """The masks of a finished run's folder. Raises DamagedError if they are damaged."""
        path = folder / MASKS
        arrays = _read_arrays(path)
        images = arrays.get("images", np.empty(0))
        maps = {name: array for name, array in arrays.items() if MAP.fullmatch(name)}
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
            raise DamagedError(path, "has no images")
        if any(not np.issubdtype(array.dtype, np.floating) for array in maps.values()):
            raise DamagedError(path, "its masks are not floating-point numbers")
        if any(array.ndim != 3 or len(array) != len(images) or not array.size for array in maps.values()):
            raise DamagedError(path, "its masks do not fit its images")
        return cls(images, maps)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an archive.

    Raises:
        DamagedError: if the file is damaged, or is not an archive of arrays of numbers.
    """
    data = read_verified(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise DamagedError(path, f"cannot be read ({one_line(error)})") from None


def write_mistakes(folder: Path, wrong: NDArray[np.bool_]) -> None:
    """Write ``mistakes.npz``: for each test image, in order, whether the finished network is wrong (bool [N])."""
    write_arrays(folder / MISTAKES, {"wrong": np.packbits(wrong), "images": np.asarray(len(wrong))})


def read_mistakes(folder: Path) -> NDArray[np.bool_] | None:
    """Which test images a finished run got wrong (bool [N]); None for a run that was finished before this was kept."""
    path = folder / MISTAKES
    if not lexists(path):
        return None
    arrays = _read_arrays(path)
    try:
        packed, count = arrays["wrong"], arrays["images"]
        if packed.dtype != np.uint8 or packed.ndim != 1 or count.ndim or not np.issubdtype(count.dtype, np.integer):
            raise ValueError(f"{packed.dtype} {list(packed.shape)} for {count.dtype} {list(count.shape)} images")
        images = int(count)
        if not 8 * len(packed) - 7 <= images <= 8 * len(packed):
            raise ValueError(f"{len(packed)} bytes for {images} images")
        return np.unpackbits(packed, count=images).astype(bool)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(path, f"not a list of mistakes ({one_line(error)})") from None
