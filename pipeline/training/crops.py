"""Crops of encoded photographs, decided before anything is decoded.

The crop is a function of the photograph's size, which the index knows, and of random numbers. So a large photograph is
decoded at a half, a quarter or an eighth of its size where the crop is shrunk by at least that much (libjpeg-turbo does
it within the inverse cosine transform), and what is decoded depends on nothing else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.inspection import FORMATS
from pipeline.data.shards import Shards
from pipeline.errors import UserError, one_line

# Scale and aspect of training crops (paper: GoogLeNet's, arXiv:1409.4842): 8 to 100 % of the area, 3:4 to 4:3.
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10  # to place such a crop in a photograph; then the largest central one is taken
NUMBERS = 4  # random numbers of an attempt: area, aspect, top, left
# The test crop takes 7/8 of the shorter side: 224 of 256 pixels, 299 of 342, 320 of 366. The paper gives the crop only.
TEST_SHARE = 7 / 8


class Box(NamedTuple):
    """A rectangle in a photograph, in pixels."""

    left: float
    top: float
    width: float
    height: float


def random_box(height: int, width: int, numbers: Sequence[Sequence[float]]) -> Box:
    """A training crop of a photograph of that size, from uniform numbers in [0, 1), `ATTEMPTS` times `NUMBERS`."""
    for area, aspect, down, right in numbers:
        target = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(math.log(ASPECT[0]) + (math.log(ASPECT[1]) - math.log(ASPECT[0])) * aspect)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(right * (width - w + 1)), int(down * (height - h + 1)), w, h)
    w = min(width, max(1, round(height * ASPECT[1])))
    h = min(height, max(1, round(width / ASPECT[0])))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def centre_box(height: int, width: int) -> Box:
    """The square in the middle that is tested on."""
    side = min(height, width) * TEST_SHARE
    return Box((width - side) / 2, (height - side) / 2, side, side)


def decode(encoded: bytes, box: Box, size: int) -> NDArray[np.uint8]:
    """A box of a photograph, resized to a square by bilinear interpolation with antialiasing: uint8 [size, size, 3]."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        width, height = image.size
        # Of the whole photograph, at least so many pixels are needed for the box to have `size` in each direction.
        image.draft(None, (math.ceil(width * size / box.width), math.ceil(height * size / box.height)))
        x, y = image.width / width, image.height / height
        edges = (box.left * x, box.top * y, (box.left + box.width) * x, (box.top + box.height) * y)
        inside = (edges[0], edges[1], min(edges[2], image.width), min(edges[3], image.height))
        pixels = image if image.mode == "RGB" else image.convert("RGB")
        return np.asarray(pixels.resize((size, size), Image.Resampling.BILINEAR, box=inside))


def decode_into(out: NDArray[np.uint8], shards: Shards, number: int, box: Box) -> None:
    """Put a box of a photograph into `out`, uint8 [S, S, 3]; UserError if its shard has been damaged."""
    try:
        out[:] = decode(shards.encoded(number), box, len(out))
    except Exception as error:  # damaged bytes: the decoders raise whatever they stumble over
        raise UserError(f"{shards.place(number)}: cannot be decoded ({one_line(error)}); run prepare again") from None
