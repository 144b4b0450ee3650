"""Boxes of the crops, chosen before an image is decoded from its size and random numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Scale and aspect of training crops (paper: GoogLeNet's, arXiv:1409.4842): 8 to 100 % of the area, 3:4 to 4:3.
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10  # to place such a crop in an image; after them the largest central one is taken
NUMBERS = 4  # random numbers of an attempt: area, aspect, top, left
# The test crop takes 7/8 of the shorter side: 224 of 256 pixels, 299 of 342, 320 of 366. The paper gives the crop only.
TEST_SHARE = 7 / 8


class Box(NamedTuple):
    """A rectangle in an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def random_box(height: int, width: int, numbers: Sequence[Sequence[float]]) -> Box:
    """Return a training crop of an image of that size, from uniform numbers in [0, 1), [`ATTEMPTS`, `NUMBERS`]."""
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
    """Return the square in the middle of an image that is tested on."""
    side = max(1, round(min(height, width) * TEST_SHARE))
    return Box((width - side) // 2, (height - side) // 2, side, side)
