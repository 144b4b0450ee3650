"""A look at one encoded image: whether it can be decoded, and what is unusual about it."""

from __future__ import annotations

import io
from typing import NamedTuple

from pipeline.utils.errors import one_line

FORMATS = ("JPEG", "PNG")
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = ("1", "L", "LA", "I", "I;16")


class BrokenImageError(Exception):
    """A file that gives no pixels; the message is the reason, in a few words."""


class Inspected(NamedTuple):
    """Size in pixels, and what is unusual: CMYK, greyscale, PNG named JPEG, JPEG named PNG, or "" for nothing."""

    height: int
    width: int
    unusual: str


def inspect(encoded: bytes, name: str) -> Inspected:
    """Decode an image to its last row, and say what it is.

    What is unusual is converted to RGB wherever the image is decoded; ImageNet has some of each kind.

    Raises:
        BrokenImageError: for an empty or truncated file, or one that is neither JPEG nor PNG.
    """
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        raise BrokenImageError("empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            mode = image.mode
            image.load()
    except UnidentifiedImageError:
        raise BrokenImageError("neither JPEG nor PNG") from None
    except Exception as error:  # foreign bytes: the decoders raise whatever they stumble over
        raise BrokenImageError(one_line(error)) from None
    return Inspected(height, width, _unusual(encoded, mode, name))


def _unusual(encoded: bytes, mode: str, name: str) -> str:
    is_png, named_jpeg = encoded.startswith(_PNG), name.lower().endswith((".jpg", ".jpeg"))
    if is_png and named_jpeg:
        return "PNG named JPEG"
    if not is_png and not named_jpeg:
        return "JPEG named PNG"
    if mode == "CMYK":
        return "CMYK"
    return "greyscale" if mode in _GREY else ""
