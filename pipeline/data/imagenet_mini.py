"""A stand-in for ImageNet that is there without a network: patches of the two photographs that scikit-learn ships.

It shows that the path from JPEG files to the report works; a network that learns it has learnt two photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import PhotographSet
from pipeline.data.image_folder import SPLITS, find_photographs, record_listing
from pipeline.data.source import Source
from pipeline.errors import UserError
from pipeline.files import replace_folder

_SHAPE = (427, 640, 3)
_CELL = (213, 160)  # height and width: two rows and four columns of cells in each photograph
_PATCH = 80  # pixels
_VALIDATION = 133  # first row of a cell that only validation patches see
_STEP = 10  # pixels between two patches
_QUALITY = 95


class ImageNetMini(PhotographSet):
    """16 classes, each a region of a photograph: 54 training and 9 validation patches of 80x80 pixels, as JPEG.

    Training patches are cut from the upper 133 rows of a region and overlap each other; validation patches are cut from
    the lower 80 rows, of which no training patch has a pixel.
    """

    name = "imagenet-mini"
    class_count = 16
    images: ClassVar[Mapping[str, int]] = {"train": 864, "val": 144}

    def fetch(self, source: str, raw: Path) -> Source:
        """Cut scikit-learn's photographs into the tree of class folders; `source` can only be "official"."""
        if source != "official":
            raise UserError(f"source {source!r} of {self.name}: allowed is 'official', scikit-learn's photographs")
        from PIL import Image
        from sklearn.datasets import load_sample_images

        bunch = load_sample_images()
        photographs = {Path(path).stem: image for path, image in zip(bunch.filenames, bunch.images, strict=True)}
        if sorted(photographs) != ["china", "flower"] or any(i.shape != _SHAPE for i in photographs.values()):
            raise UserError("scikit-learn's photographs are not the two known; install another version of it")
        for split in SPLITS:
            with replace_folder(raw / split) as fresh:
                for name, patch in cut_patches(photographs, split):
                    path = fresh / name
                    path.parent.mkdir(exist_ok=True)
                    Image.fromarray(patch).save(path, "JPEG", quality=_QUALITY)
        return record_listing(self.name, ".", find_photographs(raw, self.class_count, self.images), raw)


def cut_patches(photographs: dict[str, NDArray[np.uint8]], split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The patches of a split, uint8 [80, 80, 3], with their paths `<class>/<name>.JPEG`."""
    height, width = _CELL
    first, last = (0, _VALIDATION) if split == "train" else (_VALIDATION, height)
    for name, image in sorted(photographs.items()):
        for cell in range(8):
            top, left = cell // 4 * height, cell % 4 * width
            for y in range(first, last - _PATCH + 1, _STEP):
                for x in range(0, width - _PATCH + 1, _STEP):
                    patch = image[top + y : top + y + _PATCH, left + x : left + x + _PATCH]
                    yield f"{name}{cell}/{split}_{y:03d}_{x:03d}.JPEG", patch
