"""What the networks here have in common: a stem, stages of units, global average pooling and a classifier."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from models.units import conv3x3, max_pool, norm_relu


class Stem(nn.Sequential):
    """The layers before the first unit."""

    channels: int

    def output_size(self, size: int) -> int:
        """Height (or width) of the output for images of that height (or width)."""
        raise NotImplementedError


class CifarStem(Stem):
    """One 3x3 convolution [N, 3, H, W] -> [N, 16, H, W]; the first unit brings the batch norm and ReLU."""

    channels = 16

    def __init__(self) -> None:
        super().__init__(conv3x3(3, self.channels))

    def output_size(self, size: int) -> int:
        return size


class ImageNetStem(Stem):
    """7x7 convolution, batch norm, ReLU, max pooling: [N, 3, H, W] -> [N, 64, H / 4, W / 4]."""

    channels = 64

    def __init__(self, pool: nn.MaxPool2d | None = None) -> None:
        conv = nn.Conv2d(3, self.channels, 7, stride=2, padding=3, bias=False)
        super().__init__(conv, *norm_relu(self.channels), pool or max_pool())

    def output_size(self, size: int) -> int:
        return (size + 1) // 2 // 2


class StagedNetwork(nn.Module):
    """Images [N, 3, H, W] -> class scores [N, num_classes]. A forward hook on `stages[i]` sees that stage's output.

    preactivation: whether the last stage's output still needs its batch norm and ReLU.
    smallest_input: the least height and width, in pixels, that the network can take.
    """

    def __init__(
        self,
        stem: Stem,
        stages: Iterable[nn.Module],
        channels: int,
        num_classes: int,
        *,
        preactivation: bool,
        smallest_input: int | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.activate = norm_relu(channels) if preactivation else nn.Identity()
        self.fc = nn.Linear(channels, num_classes)
        self.smallest_input = smallest_input or next(s for s in range(1, 8) if stem.output_size(s) > 0)

    def forward(self, images: Tensor) -> Tensor:
        refuse_smaller(images, self.smallest_input)
        features = self.activate(self.stages(self.stem(images)))
        scores: Tensor = self.fc(features.mean(dim=(2, 3)))
        return scores


STAGES = (("layer1", "layer2", "layer3", "layer4"), ("repeat", "repeat_1", "block8"))
"""How timm names the last parts of the stages of its ResNets, and of Inception-ResNet-v2."""


def stages_of(model: nn.Module) -> list[nn.Module]:
    """The parts of any network here whose outputs are the outputs of its stages."""
    stages = getattr(model, "stages", None)
    if isinstance(stages, nn.Sequential):
        return list(stages)
    return [getattr(model, name) for names in STAGES if all(hasattr(model, name) for name in names) for name in names]


def refuse_smaller(images: Tensor, smallest: int) -> None:
    """Raise ValueError for images [N, 3, H, W] of less than `smallest` pixels in height or width."""
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise ValueError(
            f"images of {height}x{width} pixels are too small: the smallest allowed are {smallest}x{smallest}"
        )
