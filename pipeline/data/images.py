"""Encoded images: decoding to exactly the pixels of the data set, and inspection of those that stay encoded."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.data.progress import progress_bar
from pipeline.utils.errors import UserError, one_line

LOSSLESS = "PNG, BMP, PPM, lossless WebP"
FORMATS = ("JPEG", "PNG")  # of images that stay encoded
_PNG = b"\x89PNG\r\n\x1a\n"
_LOSSLESS_MAGIC = {_PNG: "PNG", b"BM": "BMP", b"P6": "PPM"}
_GREY = ("1", "L", "LA", "I", "I;16")
_EXACT_MODES = ("RGB", "L", "P")  # a conversion of these to RGB loses nothing


class BrokenImageError(Exception):
    """A file that cannot be used as an image; the message is the reason, in a few words."""


class Record(NamedTuple):
    """One encoded image, its label, and the name of its place for messages."""

    place: str
    encoded: bytes
    label: int


def lossless_format(encoded: bytes) -> str:
    """Return the name of the image format, by content; BrokenImageError for anything that may have lost pixels."""
    for magic, name in _LOSSLESS_MAGIC.items():
        if encoded.startswith(magic):
            return name
    if encoded.startswith(b"\xff\xd8"):
        raise BrokenImageError("JPEG is lossy, its pixels are not those of the data set")
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        if b"VP8L" in _webp_chunks(encoded):
            return "WEBP"
        raise BrokenImageError("this WebP is lossy, its pixels are not those of the data set")
    raise BrokenImageError("not an image of a known lossless format")


def _webp_chunks(encoded: bytes) -> list[bytes]:
    """Return the names of the chunks of a RIFF file.

    Each chunk is a name, a little-endian length, and content padded to an even length.
    """
    names, position = [], 12
    while position + 8 <= len(encoded):
        names.append(encoded[position : position + 4])
        length = int.from_bytes(encoded[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    return names


def decode_image(encoded: bytes, shape: tuple[int, int, int], place: str) -> NDArray[np.uint8]:
    """Return the pixels, uint8 `shape` = (H, W, 3); UserError for a damaged, lossy or differently sized image."""
    from PIL import Image

    try:
        allowed_format = lossless_format(encoded)
    except BrokenImageError as error:
        raise UserError(f"{place}: {error}; allowed are {LOSSLESS}") from None
    try:
        with Image.open(io.BytesIO(encoded), formats=(allowed_format,)) as image:
            size, mode = image.size, image.mode
            pixels = np.asarray(image.convert("RGB")) if size == (shape[1], shape[0]) else None
    except Exception as error:  # on damaged bytes the decoders raise exceptions of any type
        raise UserError(f"{place}: damaged {allowed_format} image ({one_line(error)})") from None
    if pixels is None:
        raise UserError(f"{place}: {size[0]}x{size[1]} pixels, expected {shape[1]}x{shape[0]}")
    if mode not in _EXACT_MODES:
        raise UserError(
            f"{place}: colour mode {mode}, allowed are {', '.join(_EXACT_MODES)}; save it again, with the pixels of"
            " the data set, as RGB with 8 bits and without transparency"
        )
    return pixels


def decode_records(
    records: Iterable[Record], count: int, shape: tuple[int, int, int], classes: int, title: str
) -> Split:
    """Decode exactly `count` images, with labels from 0 to `classes` - 1; `title` names the split.

    A single thread: Pillow's WebP decoder holds the GIL, and 60,000 images take it about 12 s.
    """
    images = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.int64)
    seen = 0
    with progress_bar(f"decode {title}", count) as advance:
        for place, encoded, label in records:
            if seen == count:
                raise UserError(f"{place}: more than the {count} images of {title}")
            if not 0 <= label < classes:
                raise UserError(f"{place}: label {label}, allowed are 0 to {classes - 1}")
            images[seen] = decode_image(encoded, shape, place)
            labels[seen] = label
            seen += 1
            advance(1)
    if seen != count:
        raise UserError(f"{title}: {seen} images, expected {count}")
    return Split(images, labels)


class Inspected(NamedTuple):
    """Size in pixels, and what is unusual: CMYK, greyscale, PNG named JPEG, JPEG named PNG, or "" for nothing."""

    height: int
    width: int
    unusual: str


def inspect(encoded: bytes, name: str) -> Inspected:
    """Decode a JPEG or PNG file to its last row, and describe it.

    Unusual images are converted to RGB wherever they are decoded; ImageNet has some of each kind.

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
    except Exception as error:  # on damaged bytes the decoders raise exceptions of any type
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
