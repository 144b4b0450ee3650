"""The interfaces of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import Source


@dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 [N, H, W, 3], and their labels, int64 [N]; their order has no meaning."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def concatenate(splits: Sequence[Split]) -> Split:
    """Join several parts to one split."""
    return Split(np.concatenate([s.images for s in splits]), np.concatenate([s.labels for s in splits]))


class DataSet(ABC):
    """A data set: one subclass in one file, entered in `pipeline.data.DATASETS`.

    `classes[k]` is the name of label k; `image_shape` is (H, W, 3).
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    image_shape: ClassVar[tuple[int, int, int]]
    train_images: ClassVar[int]
    test_images: ClassVar[int]

    @abstractmethod
    def fetch(self, source: str, raw: Path) -> Source:
        """Download the data to the folder `raw`, or find them at `source`; UserError if they are wrong."""

    @abstractmethod
    def decode(self, source: Source, raw: Path) -> tuple[Split, Split]:
        """Return training and test split of fetched data, whose files have been verified against `source`."""


class ImageFolderSet(ABC):
    """A data set of images of any size, which stay encoded until a batch needs them.

    Like a `DataSet` it is one subclass in one file, entered in `pipeline.data.DATASETS`. Its classes are the sorted
    names of the class folders that `fetch` finds; `images` are the files of each split, "train" and "val".
    """

    name: ClassVar[str]
    class_count: ClassVar[int]
    images: ClassVar[Mapping[str, int]]

    @abstractmethod
    def fetch(self, source: str, raw: Path) -> Source:
        """Find the class folders, and write their listing into `raw`; UserError if they are wrong."""
