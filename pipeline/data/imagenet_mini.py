"""A stand-in for ImageNet that needs no download: patches of images that installed packages contain.

It shows that the path from JPEG files to the report works; a network that learns it has learnt nine images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import ImageFolderSet
from pipeline.data.image_folder import SPLITS, list_images, record_listing
from pipeline.data.source import Source
from pipeline.utils.errors import UserError
from pipeline.utils.files import replace_folder


class PackageImage(NamedTuple):
    """An image in an installed package: its path there, and its size in pixels."""

    package: str
    file: str
    height: int
    width: int


# The colour images of both packages, without the motorcycle's second view and the retina, whose patches of this size
# would be plain orange.
IMAGES: Mapping[str, PackageImage] = {
    "astronaut": PackageImage("scikit-image", "skimage/data/astronaut.png", 512, 512),
    "cat": PackageImage("scikit-image", "skimage/data/chelsea.png", 300, 451),
    "china": PackageImage("scikit-learn", "sklearn/datasets/images/china.jpg", 427, 640),
    "coffee": PackageImage("scikit-image", "skimage/data/coffee.png", 400, 600),
    "flower": PackageImage("scikit-learn", "sklearn/datasets/images/flower.jpg", 427, 640),
    "galaxies": PackageImage("scikit-image", "skimage/data/hubble_deep_field.jpg", 872, 1000),
    "motorcycle": PackageImage("scikit-image", "skimage/data/motorcycle_left.png", 500, 741),
    "rocket": PackageImage("scikit-image", "skimage/data/rocket.jpg", 427, 640),
    "tissue": PackageImage("scikit-image", "skimage/data/ihc.png", 512, 512),
}
_CELLS = (3, 4)  # rows and columns of cells that an image is divided into
_PATCHES: Mapping[str, tuple[int, int]] = {"train": (3, 4), "val": (2, 2)}  # rows and columns of patches in a cell
_PATCH = 80  # pixels
_QUALITY = 95


class ImageNetMini(ImageFolderSet):
    """9 classes, each from one image: 96 training and 16 validation patches of 80x80 pixels, as JPEG.

    An image is divided into twelve cells. The patches of four of them are for validation, so that no training patch has
    a pixel of a validation patch. Patches of one cell may overlap each other.
    """

    name = "imagenet-mini"
    class_count = len(IMAGES)
    images: ClassVar[Mapping[str, int]] = {"train": 864, "val": 144}

    def fetch(self, source: str, raw: Path) -> Source:
        """Cut the images into the tree of class folders; `source` can only be "official"."""
        if source != "official":
            raise UserError(
                f"source {source!r} of {self.name}: allowed is 'official', images of scikit-learn and scikit-image"
            )
        from PIL import Image

        pixels = {name: _read(image) for name, image in IMAGES.items()}
        for split in SPLITS:
            with replace_folder(raw / split, [f"*/{split}_*.JPEG"]) as fresh:
                for name, patch in cut_patches(pixels, split):
                    path = fresh / name
                    path.parent.mkdir(exist_ok=True)
                    Image.fromarray(patch).save(path, "JPEG", quality=_QUALITY)
        return record_listing(self.name, ".", list_images(raw, self.class_count, self.images), raw)


def _read(image: PackageImage) -> NDArray[np.uint8]:
    """Return the pixels, uint8 [H, W, 3]; UserError if the image is missing or another one.

    The file is read without its package, whose import takes seconds, and scikit-image would download missing files.
    """
    from PIL import Image

    package, file, height, width = image
    try:
        with Image.open(Path(str(distribution(package).locate_file(file)))) as opened:
            pixels = np.asarray(opened)
    except PackageNotFoundError:
        problem = "is missing: the package is not installed"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, SyntaxError, ValueError):  # Pillow raises any of them for a damaged file
        problem = "cannot be read"
    else:
        if pixels.shape == (height, width, 3):
            return pixels
        problem = f"is not the known one: its shape is {pixels.shape}, expected {(height, width, 3)}"
    raise UserError(f"{file} of {package} {problem}; install {package} again, or another version of it")


def cut_patches(images: Mapping[str, NDArray[np.uint8]], split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the patches of a split, uint8 [80, 80, 3], with their paths `<class>/<name>.JPEG`."""
    for name, image in sorted(images.items()):
        height, width = image.shape[0] // _CELLS[0], image.shape[1] // _CELLS[1]
        rows, columns = (_spread(room - _PATCH, n) for room, n in zip((height, width), _PATCHES[split], strict=True))
        for row, column in product(range(_CELLS[0]), range(_CELLS[1])):
            if ((row + column) % 3 == 0) != (split == "val"):  # on diagonals: each part of the image has some
                continue
            for y, x in product(rows, columns):
                top, left = row * height + y, column * width + x
                yield f"{name}/{split}_{top:03d}_{left:03d}.JPEG", image[top : top + _PATCH, left : left + _PATCH]


def _spread(last: int, count: int) -> list[int]:
    """Return `count` evenly spaced integers from 0 to `last`."""
    return [k * last // (count - 1) for k in range(count)]
