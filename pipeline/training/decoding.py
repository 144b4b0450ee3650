"""Decoding of photographs: a box of each, resized to a square and perhaps mirrored.

Threads of the processor decode with libjpeg-turbo, by torchvision. A large photograph is decoded at a half, a quarter
or an eighth of its size where its box is shrunk by at least that much: by Pillow, which has libjpeg-turbo do it within
the inverse cosine transform. A GPU decodes whole batches with nvJPEG, by torchvision, too. What is neither RGB nor
greyscale, or no JPEG, goes through Pillow in any case. The result depends on photograph, box and decoder alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.inspection import FORMATS
from pipeline.data.shards import Shards
from pipeline.errors import UserError, one_line
from pipeline.training.crops import Box

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PLAIN = ("RGB", "L")  # Pillow's modes of the JPEG files that torchvision decodes, on a GPU as well

Squares = Callable[[], Tensor]
"""Waits for photographs that are being decoded: uint8 [B, S, S, 3], on the device."""


class Decoder(Protocol):
    """Decodes photographs ahead of their use."""

    def begin(self, which: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Squares:
        """Begin to decode a box of each photograph; the call of what is returned raises UserError for damaged ones."""


class ThreadDecoder:
    """Decodes on the processor, one photograph after the other in each thread.

    Args:
        shards: the photographs.
        size: side of the squares in pixels.
        pool: the threads.
        device: where the squares go.
    """

    def __init__(self, shards: Shards, size: int, pool: ThreadPoolExecutor, device: torch.device) -> None:
        self.shards, self.size, self.pool, self.device = shards, size, pool, device

    def begin(self, which: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Squares:
        """See `Decoder`."""
        pinned = self.device.type == "cuda"  # copied while the device computes
        squares = torch.empty(len(boxes), self.size, self.size, 3, dtype=torch.uint8, pin_memory=pinned)
        tasks = [
            self.pool.submit(self._decode_into, square, number, box, mirror)
            for square, number, box, mirror in zip(squares, which, boxes, mirrored, strict=True)
        ]

        def wait() -> Tensor:
            for task in tasks:
                task.result()
            return squares.to(self.device, non_blocking=True)

        return wait

    def _decode_into(self, square: Tensor, number: int, box: Box, mirror: bool) -> None:
        square.copy_(_decode_numbered(self.shards, number, box, self.size, mirror))


class DeviceDecoder:
    """Decodes whole batches on the device: nvJPEG on a GPU (on the processor libjpeg-turbo, in one thread).

    Args:
        shards: the photographs.
        size: side of the squares in pixels.
        pool: threads that read, and that wait for the device.
        device: where they are decoded.
    """

    def __init__(self, shards: Shards, size: int, pool: ThreadPoolExecutor, device: torch.device) -> None:
        self.shards, self.size, self.pool, self.device = shards, size, pool, device

    def begin(self, which: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Squares:
        """See `Decoder`."""
        return self.pool.submit(self._decode, which, boxes, mirrored).result

    def _decode(self, which: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Tensor:
        from torchvision.io import ImageReadMode, decode_jpeg

        squares = torch.empty(len(boxes), self.size, self.size, 3, dtype=torch.uint8, device=self.device)
        encoded = [self.shards.encoded(number) for number in which]
        plain = []
        for k, (number, content) in enumerate(zip(which, encoded, strict=True)):
            if _is_plain(content):
                plain.append(k)
            else:
                squares[k] = _decode_numbered(self.shards, number, boxes[k], self.size, mirrored[k]).to(self.device)
        if plain:
            try:
                whole = decode_jpeg([_tensor(encoded[k]) for k in plain], ImageReadMode.RGB, device=self.device)
            except RuntimeError as error:
                place = self.shards.place(which[plain[0]])
                raise UserError(
                    f"{place}: this photograph, or one of the {len(plain)} of its batch, cannot be decoded on"
                    f" {self.device} ({one_line(error)}); crops.decoder = 'libjpeg-turbo' decodes on the processor"
                ) from None
            for k, photograph in zip(plain, whole, strict=True):
                squares[k] = _cut(photograph, boxes[k], self.size, mirrored[k])
        return squares


def _is_plain(encoded: bytes) -> bool:
    """Whether it is a JPEG file in RGB or grey, by its header; damaged ones are not."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return image.format == "JPEG" and image.mode in PLAIN
    except Exception:  # damaged bytes: who decodes it says so
        return False


def _decode_numbered(shards: Shards, number: int, box: Box, size: int, mirror: bool) -> Tensor:
    """See `decode`; UserError if the shard has been damaged."""
    try:
        return decode(shards.encoded(number), box, size, mirror)
    except Exception as error:  # damaged bytes: the decoders raise whatever they stumble over
        raise UserError(f"{shards.place(number)}: cannot be decoded ({one_line(error)}); run prepare again") from None


def decode(encoded: bytes, box: Box, size: int, mirror: bool = False) -> Tensor:
    """A box of a photograph, resized to a square by bilinear interpolation with antialiasing: uint8 [size, size, 3]."""
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        if image.format == "JPEG" and image.mode in PLAIN and min(box.width, box.height) < 2 * size:
            return _cut(decode_jpeg(_tensor(encoded), ImageReadMode.RGB), box, size, mirror)
        return _cut_by_pillow(image, box, size, mirror)


def _cut_by_pillow(image: Picture, box: Box, size: int, mirror: bool) -> Tensor:
    from PIL import Image

    width, height = image.size
    # Of the whole photograph, at least so many pixels are needed for the box to have `size` in each direction.
    image.draft(None, (math.ceil(width * size / box.width), math.ceil(height * size / box.height)))
    x, y = image.width / width, image.height / height
    inside = (box.left * x, box.top * y, (box.left + box.width) * x, (box.top + box.height) * y)
    pixels = image if image.mode == "RGB" else image.convert("RGB")
    square = torch.from_numpy(np.array(pixels.resize((size, size), Image.Resampling.BILINEAR, box=inside)))
    return square.flip(1) if mirror else square


def _tensor(encoded: bytes) -> Tensor:
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


def _cut(photograph: Tensor, box: Box, size: int, mirror: bool) -> Tensor:
    """A box of uint8 [3, H, W], resized, perhaps mirrored: uint8 [size, size, 3]."""
    part = photograph[None, :, box.top : box.top + box.height, box.left : box.left + box.width]
    if part.is_cuda:  # where PyTorch interpolates floating-point numbers only
        resized = _resize(part.float(), size).round_().clamp_(0, 255).to(torch.uint8)
    else:
        resized = _resize(part, size)
    square = resized[0].permute(1, 2, 0)
    return square.flip(1) if mirror else square


def _resize(part: Tensor, size: int) -> Tensor:
    return F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=True)
