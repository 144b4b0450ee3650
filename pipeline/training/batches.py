"""The stream of training batches, cut on the device from arrays that live there.

The images of all epochs form one continuous stream, each epoch in an order of its own; batch k holds the images
k*B ... (k+1)*B - 1 of that stream, across the borders of epochs (160,000 batches of 64 are 204.8 epochs of
CIFAR-10). Order, crops and flips of an epoch depend on (seed, epoch) alone, so a batch is the same for any number
of workers, and after any resume.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.training.randomness import generator


class Stream(Protocol):
    """Training batches of one worker, by iteration; its length is the number of training images."""

    def __len__(self) -> int: ...

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Images float32 [B, C, H, W] and labels int64 [B]: this worker's share, on its device."""


class TestImages(Protocol):
    """The test images.

    Attributes:
        has_top5: whether the top-5 error is measured on them.
    """

    has_top5: bool

    @property
    def normalisation(self) -> dict[str, Any]:
        """How they are cut and normalised; the arguments of `models.trained.Normalise`."""

    def __len__(self) -> int: ...

    def batches(self, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, C, H, W] and labels int64 [B] of the images `first` ... `end` - 1, on the device."""

    def first_images(self, count: int) -> Tensor:
        """The first images as they are tested, but not normalised: uint8 [count, H, W, C]."""


def epoch_order(seed: int, epoch: int, images: int) -> Tensor:
    """The order of the images in an epoch, int64 [images]."""
    return torch.randperm(images, generator=generator(seed, "order", epoch))


def own_share(batch_size: int, rank: int, world_size: int) -> slice:
    """The part of a global batch that is one worker's; ValueError if they cannot share it evenly."""
    if batch_size % world_size:
        raise ValueError(f"batch_size = {batch_size} cannot be shared evenly by {world_size} workers")
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def epoch_slices(start: int, end: int, images: int) -> Iterator[tuple[int, slice]]:
    """The positions `start` ... `end` - 1 of the stream, as epochs and the part that lies in each."""
    while start < end:
        epoch, position = divmod(start, images)
        part = slice(position, min(position + end - start, images))
        yield epoch, part
        start += part.stop - part.start


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set: for each position of the stream, which image and how it is cut.

    All tensors have shape [N]; `top` and `left` are offsets in pixels into the padded image.
    """

    order: Tensor
    top: Tensor
    left: Tensor
    mirrored: Tensor

    @classmethod
    def draw(cls, seed: int, epoch: int, images: int, padding: int, flip: bool) -> Epoch:
        """Draw an epoch on the CPU, each part from a generator of its own."""

        def numbers(purpose: str, high: int) -> Tensor:
            return torch.randint(high, (images,), generator=generator(seed, purpose, epoch))

        return cls(
            order=epoch_order(seed, epoch, images),
            top=numbers("crop-top", 2 * padding + 1),
            left=numbers("crop-left", 2 * padding + 1),
            mirrored=numbers("flip", 2).bool() if flip else torch.zeros(images, dtype=torch.bool),
        )

    def to(self, device: torch.device) -> Epoch:
        """The same epoch on a device."""
        return Epoch(*(t.to(device) for t in (self.order, self.top, self.left, self.mirrored)))

    def part(self, positions: slice) -> Epoch:
        """Some positions of it."""
        return Epoch(*(t[positions] for t in (self.order, self.top, self.left, self.mirrored)))


def normalise(images: Tensor, mean: Tensor) -> Tensor:
    """Scale uint8 images [B, H, W, C] to [0, 1] and subtract the per-pixel training mean [H, W, C]; float32."""
    return images.to(torch.float32).div_(255.0).sub_(mean)


def cut(images: Tensor, epoch: Epoch, padding: int) -> Tensor:
    """Pad images [B, H, W, C] with zeros, cut a window of the old size out of each, and mirror some.

    `epoch` gives offsets and flips, one for each of the B images.
    """
    height, width = images.shape[1:3]
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    rows = epoch.top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    columns = torch.where(epoch.mirrored[:, None], width - 1 - columns, columns) + epoch.left[:, None]
    which = torch.arange(len(images), device=images.device)
    return padded[which[:, None, None], rows[:, :, None], columns[:, None, :]]


class TrainingStream:
    """Batches of one worker, by iteration.

    Args:
        images: uint8 [N, H, W, C].
        labels: integers [N].
        mean: float32 [H, W, C], mean of the training images scaled to [0, 1].
        seed: seed of the run.
        batch_size: images in the global batch; the workers share it evenly.
        padding: zero padding in pixels on each side.
        flip: whether images are mirrored at random.
        rank, world_size: this worker among all.
        device: where the data live and the batches are cut.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        padding: int,
        flip: bool,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
    ) -> None:
        self.share = own_share(batch_size, rank, world_size)
        self.device = torch.device(device)
        self.images = on_device(images, self.device)
        self.labels = on_device(labels, self.device).long()
        self.mean = on_device(mean, self.device)
        self.seed, self.batch_size, self.padding, self.flip = seed, batch_size, padding, flip
        self.channels_last = channels_last
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)  # a batch may reach into the next

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This worker's share of the batch of an iteration (counted from 0).

        Returns:
            images float32 [B / world_size, C, H, W], labels int64 [B / world_size].
        """
        start = iteration * self.batch_size
        mine = epoch_slices(start + self.share.start, start + self.share.stop, len(self))
        parts = [self._epoch(epoch).part(part) for epoch, part in mine]
        which = torch.cat([part.order for part in parts])
        cuts = Epoch(which, *(torch.cat([getattr(p, k) for p in parts]) for k in ("top", "left", "mirrored")))
        images = cut(normalise(self.images[which], self.mean), cuts, self.padding).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous(), self.labels[which]

    def _draw_epoch(self, epoch: int) -> Epoch:
        return Epoch.draw(self.seed, epoch, len(self), self.padding, self.flip).to(self.device)


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A tensor of its own with an array's content, which may be a read-only memory map."""
    return torch.from_numpy(np.array(array)).to(device)
