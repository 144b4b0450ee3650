"""A stand-in for ImageNet that is there without a network: patches of photographs that packages ship.

It shows that the path from JPEG files to the report works; a network that learns it has learnt nine photographs.
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


class Photograph(NamedTuple):
    """A photograph in an installed package: where it lies there, and its size in pixels."""

    package: str
    file: str
    height: int
    width: int


# The colour photographs of both packages, but for the motorcycle's second picture and the retina, whose patches of this
# size would be plain orange.
PHOTOGRAPHS: Mapping[str, Photograph] = {
    "astronaut": Photograph("scikit-image", "skimage/data/astronaut.png", 512, 512),
    "cat": Photograph("scikit-image", "skimage/data/chelsea.png", 300, 451),
    "china": Photograph("scikit-learn", "sklearn/datasets/images/china.jpg", 427, 640),
    "coffee": Photograph("scikit-image", "skimage/data/coffee.png", 400, 600),
    "flower": Photograph("scikit-learn", "sklearn/datasets/images/flower.jpg", 427, 640),
    "galaxies": Photograph("scikit-image", "skimage/data/hubble_deep_field.jpg", 872, 1000),
    "motorcycle": Photograph("scikit-image", "skimage/data/motorcycle_left.png", 500, 741),
    "rocket": Photograph("scikit-image", "skimage/data/rocket.jpg", 427, 640),
    "tissue": Photograph("scikit-image", "skimage/data/ihc.png", 512, 512),
}
_CELLS = (3, 4)  # rows and columns of cells that a photograph is divided into
_PATCHES: Mapping[str, tuple[int, int]] = {"train": (3, 4), "val": (2, 2)}  # rows and columns of patches in a cell
_PATCH = 80  # pixels
_QUALITY = 95


class ImageNetMini(ImageFolderSet):
    """9 classes, each a photograph: 96 training and 16 validation patches of 80x80 pixels, as JPEG.

    A photograph is divided into twelve cells. The patches of four of them are for validation; so no training patch has
    a pixel of a validation patch. Patches of one cell may overlap each other.
    """

    name = "imagenet-mini"
    class_count = len(PHOTOGRAPHS)
    images: ClassVar[Mapping[str, int]] = {"train": 864, "val": 144}

    def fetch(self, source: str, raw: Path) -> Source:
        """Cut the photographs into the tree of class folders; `source` can only be "official"."""
        if source != "official":
            raise UserError(
                f"source {source!r} of {self.name}: allowed is 'official', photographs of scikit-learn and scikit-image"
            )
        from PIL import Image

        pixels = {name: _read(photograph) for name, photograph in PHOTOGRAPHS.items()}
        for split in SPLITS:
            with replace_folder(raw / split) as fresh:
                for name, patch in cut_patches(pixels, split):
                    path = fresh / name
                    path.parent.mkdir(exist_ok=True)
                    Image.fromarray(patch).save(path, "JPEG", quality=_QUALITY)
        return record_listing(self.name, ".", list_images(raw, self.class_count, self.images), raw)


def _read(photograph: Photograph) -> NDArray[np.uint8]:
    """The pixels, uint8 [H, W, 3]; UserError if the photograph is not there or is another one.

    The file itself is read: the packages take seconds to import, and scikit-image would download what it does not have.
    """
    from PIL import Image

    package, file, height, width = photograph
    try:
        with Image.open(Path(str(distribution(package).locate_file(file)))) as image:
            pixels = np.asarray(image)
    except PackageNotFoundError:
        problem = "is not there: the package is not installed"
    except FileNotFoundError:
        problem = "is not there"
    except (OSError, SyntaxError, ValueError):  # Pillow raises any of them for a damaged file
        problem = "cannot be read"
    else:
        if pixels.shape == (height, width, 3):
            return pixels
        problem = f"is not the known one: its shape is {pixels.shape}, expected {(height, width, 3)}"
    raise UserError(f"{file} of {package} {problem}; install {package} again, or another version of it")


def cut_patches(photographs: Mapping[str, NDArray[np.uint8]], split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The patches of a split, uint8 [80, 80, 3], with their paths `<class>/<name>.JPEG`."""
    for name, image in sorted(photographs.items()):
        height, width = image.shape[0] // _CELLS[0], image.shape[1] // _CELLS[1]
        rows, columns = (_spread(room - _PATCH, n) for room, n in zip((height, width), _PATCHES[split], strict=True))
        for row, column in product(range(_CELLS[0]), range(_CELLS[1])):
            if ((row + column) % 3 == 0) != (split == "val"):  # on diagonals: each part of the photograph has some
                continue
            for y, x in product(rows, columns):
                top, left = row * height + y, column * width + x
                yield f"{name}/{split}_{top:03d}_{left:03d}.JPEG", image[top : top + _PATCH, left : left + _PATCH]


def _spread(last: int, count: int) -> list[int]:
    """`count` whole numbers from 0 to `last`, evenly apart."""
    return [k * last // (count - 1) for k in range(count)]
