"""Decoding of images: a box of each, resized to a square and perhaps mirrored.

Threads of the processor decode with libjpeg-turbo, through simplejpeg. A large image is decoded at a half, a quarter or
an eighth of its size where its box is shrunk by at least that much: by Pillow, where libjpeg-turbo does it within the
inverse cosine transform. A GPU decodes complete batches with nvJPEG, through torchvision. Files that are not JPEG, or
neither RGB nor greyscale, are always decoded by Pillow. The result depends on image, box and decoder alone.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.images import FORMATS
from pipeline.data.shards import Shards
from pipeline.training.crops import Box
from pipeline.utils.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

PLAIN = ("RGB", "L")  # Pillow's modes of the JPEG files that simplejpeg and nvJPEG decode

Squares = Callable[[], Tensor]
"""Waits for images that are being decoded: uint8 [B, S, S, 3], on the device."""


class Decoder(Protocol):
    """Decodes images ahead of their use."""

    def begin(self, indices: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Squares:
        """Begin to decode a box of each image; the result raises UserError for damaged ones when it is called."""


class ThreadDecoder:
    """Decodes on the processor, one image after the other in each thread.

    Args:
        shards: the images.
        size: side of the squares in pixels.
        pool: the threads.
        device: where the squares go.
    """

    def __init__(self, shards: Shards, size: int, pool: ThreadPoolExecutor, device: torch.device) -> None:
        self.shards, self.size, self.pool, self.device = shards, size, pool, device

    def begin(self, indices: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Squares:
        """See `Decoder`."""
        pinned = self.device.type == "cuda"  # copied while the device computes
        squares = torch.empty(len(boxes), self.size, self.size, 3, dtype=torch.uint8, pin_memory=pinned)
        tasks = [
            self.pool.submit(self._decode_into, square, index, box, mirror)
            for square, index, box, mirror in zip(squares.numpy(), indices, boxes, mirrored, strict=True)
        ]

        def wait() -> Tensor:
            for task in tasks:
                task.result()
            return squares.to(self.device, non_blocking=True)

        return wait

    def _decode_into(self, square: NDArray[np.uint8], index: int, box: Box, mirror: bool) -> None:
        square[:] = _decode_at(self.shards, index, box, self.size, mirror)


class DeviceDecoder:
    """Decodes complete batches on a GPU with nvJPEG; on the processor, for tests, with libjpeg-turbo.

    One batch at a time, in a stream of its own that is idle before and after: torchvision lets nvJPEG write into memory
    without waiting for earlier work of its stream on that memory.

    Args:
        shards: the images.
        size: side of the squares in pixels.
        pool: threads that read, and that wait for the device.
        device: where they are decoded.
    """

    def __init__(self, shards: Shards, size: int, pool: ThreadPoolExecutor, device: torch.device) -> None:
        self.shards, self.size, self.pool, self.device = shards, size, pool, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._one_at_a_time = threading.Lock()

    def begin(self, indices: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Squares:
        """See `Decoder`."""
        task = self.pool.submit(self._decode, indices, boxes, mirrored)

        def wait() -> Tensor:
            squares = task.result()
            if self._stream is not None:
                squares.record_stream(torch.cuda.current_stream(self.device))
            return squares

        return wait

    def _decode(self, indices: Sequence[int], boxes: Sequence[Box], mirrored: Sequence[bool]) -> Tensor:
        encoded = [self.shards.encoded(index) for index in indices]
        plain = [k for k, content in enumerate(encoded) if _is_plain(content)]
        with self._one_at_a_time, self._in_stream():
            squares = torch.empty(len(boxes), self.size, self.size, 3, dtype=torch.uint8, device=self.device)
            decoded = self._decode_batch([encoded[k] for k in plain], self.shards.place(indices[0]))
            for k, image in zip(plain, decoded, strict=True):
                squares[k] = self._cut(image, boxes[k], mirrored[k])
            for k in set(range(len(indices))) - set(plain):
                square = _decode_at(self.shards, indices[k], boxes[k], self.size, mirrored[k])
                squares[k] = torch.from_numpy(square.copy()).to(self.device)
            if self._stream is not None:
                self._stream.synchronize()
        return squares

    def _in_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _decode_batch(self, encoded: list[bytes], place: str) -> list[Tensor]:
        """Decode complete images: uint8 [3, H, W]."""
        if not encoded:
            return []
        try:
            from torchvision.io import ImageReadMode, decode_jpeg
        except ImportError as error:
            raise UserError(f"crops.decoder = 'nvjpeg': torchvision no longer decodes ({one_line(error)})") from None
        try:
            files = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in encoded]
            decoded: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device=self.device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(
                f"{place}: this image, or one of the {len(encoded)} of its batch, cannot be decoded on"
                f" {self.device} ({one_line(error)}); crops.decoder = 'libjpeg-turbo' decodes on the processor"
            ) from None
        return decoded

    def _cut(self, image: Tensor, box: Box, mirror: bool) -> Tensor:
        part = image[None, :, box.top : box.top + box.height, box.left : box.left + box.width]
        if part.is_cuda:  # there PyTorch interpolates floating-point numbers only
            resized = _resize(part.float(), self.size).round_().clamp_(0, 255).to(torch.uint8)
        else:
            resized = _resize(part, self.size)
        square = resized[0].permute(1, 2, 0)
        return square.flip(1) if mirror else square


def _is_plain(encoded: bytes) -> bool:
    """Return whether a file is a JPEG in RGB or grey, by its header; a damaged one is not."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return image.format == "JPEG" and image.mode in PLAIN
    except Exception:  # damaged bytes: the decoder will report them
        return False


def _decode_at(shards: Shards, index: int, box: Box, size: int, mirror: bool) -> NDArray[np.uint8]:
    """Decode an image of a shard, as `decode` does; UserError if it is damaged."""
    try:
        return decode(shards.encoded(index), box, size, mirror)
    except ImportError:
        raise
    except Exception as error:  # on damaged bytes the decoders raise exceptions of any type
        raise UserError(f"{shards.place(index)}: cannot be decoded ({one_line(error)}); run prepare again") from None


def decode(encoded: bytes, box: Box, size: int, mirror: bool = False) -> NDArray[np.uint8]:
    """Decode a box of an image, resized to uint8 [size, size, 3] by bilinear interpolation with antialiasing."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        if image.format == "JPEG" and image.mode in PLAIN and min(box.width, box.height) < 2 * size:
            square = _cut_by_libjpeg_turbo(encoded, box, size)
        else:
            square = _cut_by_pillow(image, box, size)
    return square[:, ::-1] if mirror else square


def _cut_by_libjpeg_turbo(encoded: bytes, box: Box, size: int) -> NDArray[np.uint8]:
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(encoded)
    part = np.ascontiguousarray(pixels[box.top : box.top + box.height, box.left : box.left + box.width])
    square: NDArray[np.uint8] = _resize(torch.from_numpy(part).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0).numpy()
    return square


def _cut_by_pillow(image: PILImage, box: Box, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    width, height = image.size
    # The complete image needs at least this size for the box to have `size` pixels in each direction.
    image.draft(None, (math.ceil(width * size / box.width), math.ceil(height * size / box.height)))
    x, y = image.width / width, image.height / height
    edges = (box.left * x, box.top * y, (box.left + box.width) * x, (box.top + box.height) * y)
    inside = (edges[0], edges[1], min(edges[2], image.width), min(edges[3], image.height))  # against rounding
    pixels = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(pixels.resize((size, size), Image.Resampling.BILINEAR, box=inside))


def _resize(part: Tensor, size: int) -> Tensor:
    return F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=True)
