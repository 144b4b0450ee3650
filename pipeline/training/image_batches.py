"""Training batches and test images from image shards, decoded by threads ahead of their use.

As with arrays, the images of all epochs form one continuous stream, each epoch in an order of its own, and a batch
is the same for any number of workers and after any resume: the order depends on (seed, epoch) alone; crops, flips and
colours on (seed, iteration).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pipeline.data.shards import ImageShards, Shards
from pipeline.training.batches import epoch_order, epoch_slices, own_share
from pipeline.training.crops import ATTEMPTS, NUMBERS, TEST_SHARE, centre_box, random_box
from pipeline.training.decoding import Decoder, DeviceDecoder, Squares, ThreadDecoder
from pipeline.training.randomness import generator
from pipeline.utils.errors import UserError

AHEAD = 2  # batches that are decoded while one is trained on

# Principal components of the RGB values of ImageNet's training pixels, and their eigenvalues, on the scale [0, 1]: the
# usual figures for the colour augmentation of AlexNet (Krizhevsky et al., NIPS 2012, section 4.1).
EIGENVALUES = torch.tensor([0.2175, 0.0188, 0.0045], dtype=torch.float64)
COMPONENTS = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], dtype=torch.float64
)


@dataclass(frozen=True)
class Draw:
    """The random numbers of one global batch of B images.

    Attributes:
        crops: uniform numbers, float64 [B, ATTEMPTS, NUMBERS].
        mirrored: bool [B].
        colours: what is added to red, green and blue on the scale [0, 1], float32 [B, 3].
    """

    crops: Tensor
    mirrored: Tensor
    colours: Tensor

    @classmethod
    def of(cls, seed: int, iteration: int, batch_size: int, flip: bool, colour: float) -> Draw:
        """Draw the numbers of an iteration on the CPU, each kind from a generator of its own."""

        def numbers(purpose: str) -> torch.Generator:
            return generator(seed, purpose, iteration)

        crops = torch.rand(batch_size, ATTEMPTS, NUMBERS, dtype=torch.float64, generator=numbers("crop"))
        mirrored = torch.randint(2, (batch_size,), generator=numbers("flip")).bool()
        strengths = torch.randn(batch_size, 3, dtype=torch.float64, generator=numbers("colour")) * colour
        colours = (COMPONENTS * (strengths * EIGENVALUES)[:, None, :]).sum(2)
        return cls(crops, mirrored if flip else torch.zeros_like(mirrored), colours.float())


class Normaliser:
    """Turns pixels into inputs of a network, on the device: scaled to [0, 1], minus the mean, over the deviation."""

    def __init__(self, images: ImageShards, device: torch.device, channels_last: bool) -> None:
        self.mean = torch.tensor(images.channel_mean, device=device)
        self.scale = 1 / torch.tensor(images.channel_std, device=device)
        self.channels_last = channels_last

    def __call__(self, pixels: Tensor, colours: Tensor | None = None) -> Tensor:
        """Normalise uint8 [B, H, W, 3], with `colours` [B, 3] added to the channels, to float32 [B, 3, H, W]."""
        added = (-self.mean if colours is None else colours - self.mean) * self.scale
        batch, height, width, _ = pixels.shape
        rows = pixels.reshape(batch, height, width * 3).to(torch.float32)  # long rows: PyTorch's loops are over them
        torch.addcmul(added.reshape(-1, 1, 3).repeat(1, 1, width), rows, (self.scale / 255).repeat(width), out=rows)
        images = rows.view(batch, height, width, 3).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous()


def make_decoder(name: str, shards: Shards, size: int, pool: ThreadPoolExecutor, device: torch.device) -> Decoder:
    """Return the decoder of a run, by the name in `pipeline.runs.spec.Crops`.

    Raises:
        UserError: if it needs a GPU and there is none.
    """
    if name == "libjpeg-turbo":
        return ThreadDecoder(shards, size, pool, device)
    if device.type != "cuda":
        raise UserError(f"crops.decoder = {name!r}: needs a GPU, and the run trains on {device}; use 'libjpeg-turbo'")
    return DeviceDecoder(shards, size, pool, device)


class ImageStream:
    """Batches of one worker, by iteration; see `pipeline.training.batches.TrainingStream` for the one over arrays.

    Args:
        images: the data set.
        seed: seed of the run.
        batch_size: images in the global batch; the workers share it evenly.
        crop: side of the training images in pixels.
        flip: whether images are mirrored at random.
        colour: standard deviation of the colour augmentation along each principal component (AlexNet: 0.1; 0: none).
        iterations: of the run; no images beyond them are decoded ahead.
        pool: threads that decode.
        decoder: its name; see `make_decoder`.
        rank, world_size: this worker among all.
        device: where the batches are normalised.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        images: ImageShards,
        *,
        seed: int,
        batch_size: int,
        crop: int,
        flip: bool,
        colour: float,
        iterations: int,
        pool: ThreadPoolExecutor,
        decoder: str = "libjpeg-turbo",
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
    ) -> None:
        self.share = own_share(batch_size, rank, world_size)
        self.device = torch.device(device)
        self.shards = images.train
        self.labels = torch.from_numpy(images.train.labels)
        self.seed, self.batch_size, self.flip, self.colour = seed, batch_size, flip, colour
        self.iterations = iterations
        self._normalise = Normaliser(images, self.device, channels_last)
        self._decoder = make_decoder(decoder, images.train, crop, pool, self.device)
        self._begun: dict[int, tuple[Squares, Tensor, Tensor]] = {}  # with labels and colours
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch may reach into the next epoch

    def __len__(self) -> int:
        return len(self.shards)

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return the share of this worker in the batch of an iteration (counted from 0).

        Returns:
            images float32 [B / world_size, 3, S, S], labels int64 [B / world_size].
        """
        needed = range(iteration, max(iteration + 1, min(iteration + 1 + AHEAD, self.iterations)))
        for known in [known for known in self._begun if known not in needed]:
            del self._begun[known]
        for ahead in needed:
            if ahead not in self._begun:
                self._begun[ahead] = self._begin(ahead)
        squares, labels, colours = self._begun.pop(iteration)
        return self._normalise(squares(), colours.to(self.device)), labels.to(self.device)

    def _begin(self, iteration: int) -> tuple[Squares, Tensor, Tensor]:
        start = iteration * self.batch_size
        slices = epoch_slices(start + self.share.start, start + self.share.stop, len(self))
        indices = torch.cat([self._order(epoch)[part] for epoch, part in slices])
        draw = Draw.of(self.seed, iteration, self.batch_size, self.flip, self.colour)
        boxes = [
            random_box(*self.shards.size(index), numbers)
            for index, numbers in zip(indices.tolist(), draw.crops[self.share].tolist(), strict=True)
        ]
        squares = self._decoder.begin(indices.tolist(), boxes, draw.mirrored[self.share].tolist())
        return squares, self.labels[indices], draw.colours[self.share]

    def _draw_order(self, epoch: int) -> Tensor:
        return epoch_order(self.seed, epoch, len(self))


class ImageTestSet:
    """Test images: one square crop from the middle of each (paper, Table 7).

    Args:
        images: the data set.
        crop: its side in pixels.
        pool: threads that decode.
        device: where they are tested.
        decoder: its name; see `make_decoder`.
    """

    has_top5 = True
    batch_size = 64

    def __init__(
        self,
        images: ImageShards,
        crop: int,
        pool: ThreadPoolExecutor,
        device: torch.device,
        decoder: str = "libjpeg-turbo",
    ) -> None:
        self.shards, self.device = images.test, device
        self.labels = torch.from_numpy(images.test.labels)
        self._normalise = Normaliser(images, device, channels_last=True)
        mean, std = list(images.channel_mean), list(images.channel_std)
        self.normalisation = {"image_size": crop, "crop_pct": TEST_SHARE, "mean": mean, "std": std}
        self._decoder = make_decoder(decoder, images.test, crop, pool, device)

    def __len__(self) -> int:
        return len(self.shards)

    def batches(self, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images float32 [B, 3, S, S] and labels int64 [B] of the images `first` ... `end` - 1, in order."""
        parts = [range(start, min(start + self.batch_size, end)) for start in range(first, end, self.batch_size)]
        begun = [self._begin(part) for part in parts[:AHEAD]]
        for k, part in enumerate(parts):
            begun += [self._begin(part) for part in parts[k + AHEAD : k + AHEAD + 1]]
            yield self._normalise(begun.pop(0)()), self.labels[part.start : part.stop].to(self.device)

    def first_images(self, count: int) -> Tensor:
        """Return the first images as they are tested, uint8 [count, S, S, 3]."""
        return self._begin(range(count))().cpu()

    def _begin(self, part: range) -> Squares:
        boxes = [centre_box(*self.shards.size(index)) for index in part]
        return self._decoder.begin(part, boxes, [False] * len(part))
