"""Training batches and test images from shards of photographs, decoded by threads ahead of their use.

As with arrays, the photographs of all epochs form one continuous stream, each epoch in an order of its own, and a batch
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

from pipeline.data.shards import Photographs, Shards
from pipeline.training.batches import epoch_order, own_share, stretches
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
        """Draw them on the CPU, each kind from a generator of its own."""

        def numbers(purpose: str) -> torch.Generator:
            return generator(seed, purpose, iteration)

        crops = torch.rand(batch_size, ATTEMPTS, NUMBERS, dtype=torch.float64, generator=numbers("crop"))
        mirrored = torch.randint(2, (batch_size,), generator=numbers("flip")).bool()
        strengths = torch.randn(batch_size, 3, dtype=torch.float64, generator=numbers("colour")) * colour
        colours = (COMPONENTS * (strengths * EIGENVALUES)[:, None, :]).sum(2)
        return cls(crops, mirrored if flip else torch.zeros_like(mirrored), colours.float())


class Normaliser:
    """From pixels to what a network takes, on the device: scaled to [0, 1], less the mean, over the deviation."""

    def __init__(self, photographs: Photographs, device: torch.device, channels_last: bool) -> None:
        self.mean = torch.tensor(photographs.channel_mean, device=device)
        self.scale = 1 / torch.tensor(photographs.channel_std, device=device)
        self.channels_last = channels_last

    def __call__(self, pixels: Tensor, colours: Tensor | None = None) -> Tensor:
        """uint8 [B, H, W, 3], and what is added to each colour [B, 3], to float32 [B, 3, H, W]."""
        added = (-self.mean if colours is None else colours - self.mean) * self.scale
        batch, height, width, _ = pixels.shape
        rows = pixels.reshape(batch, height, width * 3).to(torch.float32)  # long rows: PyTorch's loops are over them
        torch.addcmul(added.reshape(-1, 1, 3).repeat(1, 1, width), rows, (self.scale / 255).repeat(width), out=rows)
        images = rows.view(batch, height, width, 3).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous()


def make_decoder(name: str, shards: Shards, size: int, pool: ThreadPoolExecutor, device: torch.device) -> Decoder:
    """The decoder of a run, by the name in `pipeline.runs.spec.Crops`.

    Raises:
        UserError: if it needs a GPU and there is none.
    """
    if name == "libjpeg-turbo":
        return ThreadDecoder(shards, size, pool, device)
    if device.type != "cuda":
        raise UserError(f"crops.decoder = {name!r}: needs a GPU, and the run trains on {device}; use 'libjpeg-turbo'")
    return DeviceDecoder(shards, size, pool, device)


class PhotographStream:
    """Batches of one worker, by iteration; see `pipeline.training.batches.TrainingStream` for the other kind.

    Args:
        photographs: the data set.
        seed: seed of the run.
        batch_size: images in the global batch; the workers share it evenly.
        crop: side of the training images in pixels.
        flip: whether images are mirrored at random.
        colour: standard deviation of the colour augmentation along each principal component (AlexNet: 0.1; 0: none).
        iterations: of the run; nothing is decoded ahead beyond them.
        pool: threads that decode.
        decoder: what decodes; see `make_decoder`.
        rank, world_size: this worker among all.
        device: where the batches are normalised.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        photographs: Photographs,
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
        self.shards = photographs.train
        self.labels = torch.from_numpy(photographs.train.labels)
        self.seed, self.batch_size, self.flip, self.colour = seed, batch_size, flip, colour
        self.iterations = iterations
        self._normalise = Normaliser(photographs, self.device, channels_last)
        self._decoder = make_decoder(decoder, photographs.train, crop, pool, self.device)
        self._begun: dict[int, tuple[Squares, Tensor, Tensor]] = {}  # with labels and colours
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch may reach into the next epoch

    def __len__(self) -> int:
        return len(self.shards)

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This worker's share of the batch of an iteration (counted from 0).

        Returns:
            images float32 [B / world_size, 3, S, S], labels int64 [B / world_size].
        """
        wanted = range(iteration, max(iteration + 1, min(iteration + 1 + AHEAD, self.iterations)))
        for number in [number for number in self._begun if number not in wanted]:
            del self._begun[number]
        for number in wanted:
            if number not in self._begun:
                self._begun[number] = self._begin(number)
        squares, labels, colours = self._begun.pop(iteration)
        return self._normalise(squares(), colours.to(self.device)), labels.to(self.device)

    def _begin(self, iteration: int) -> tuple[Squares, Tensor, Tensor]:
        start = iteration * self.batch_size
        stretch = stretches(start + self.share.start, start + self.share.stop, len(self))
        which = torch.cat([self._order(epoch)[part] for epoch, part in stretch])
        draw = Draw.of(self.seed, iteration, self.batch_size, self.flip, self.colour)
        boxes = [
            random_box(*self.shards.size(number), numbers)
            for number, numbers in zip(which.tolist(), draw.crops[self.share].tolist(), strict=True)
        ]
        squares = self._decoder.begin(which.tolist(), boxes, draw.mirrored[self.share].tolist())
        return squares, self.labels[which], draw.colours[self.share]

    def _draw_order(self, epoch: int) -> Tensor:
        return epoch_order(self.seed, epoch, len(self))


class PhotographTestSet:
    """The test photographs: one square crop from the middle of each (paper, Table 7).

    Args:
        photographs: the data set.
        crop: its side in pixels.
        pool: threads that decode.
        device: where they are tested.
        decoder: what decodes; see `make_decoder`.
    """

    has_top5 = True
    batch_size = 64

    def __init__(
        self,
        photographs: Photographs,
        crop: int,
        pool: ThreadPoolExecutor,
        device: torch.device,
        decoder: str = "libjpeg-turbo",
    ) -> None:
        self.shards, self.device = photographs.test, device
        self.labels = torch.from_numpy(photographs.test.labels)
        self._normalise = Normaliser(photographs, device, channels_last=True)
        mean, std = list(photographs.channel_mean), list(photographs.channel_std)
        self.normalisation = {"image_size": crop, "crop_pct": TEST_SHARE, "mean": mean, "std": std}
        self._decoder = make_decoder(decoder, photographs.test, crop, pool, device)

    def __len__(self) -> int:
        return len(self.shards)

    def batches(self, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, 3, S, S] and labels int64 [B] of the photographs `first` ... `end` - 1, in order."""
        parts = [range(start, min(start + self.batch_size, end)) for start in range(first, end, self.batch_size)]
        begun = [self._begin(part) for part in parts[:AHEAD]]
        for k, part in enumerate(parts):
            begun += [self._begin(part) for part in parts[k + AHEAD : k + AHEAD + 1]]
            yield self._normalise(begun.pop(0)()), self.labels[part.start : part.stop].to(self.device)

    def pictures(self, count: int) -> Tensor:
        """The first photographs as they are tested, uint8 [count, S, S, 3]."""
        return self._begin(range(count))().cpu()

    def _begin(self, part: range) -> Squares:
        boxes = [centre_box(*self.shards.size(number)) for number in part]
        return self._decoder.begin(part, boxes, [False] * len(part))
