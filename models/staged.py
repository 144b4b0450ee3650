"""What all networks here have in common: a stem, stages of units, global average pooling and a classifier."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from models.units import conv3x3, max_pool, norm_relu

CIFAR_STEM_CHANNELS = 16
IMAGENET_STEM_CHANNELS = 64


def cifar_stem() -> nn.Conv2d:
    """3x3 convolution [N, 3, H, W] -> [N, 16, H, W]; the first unit brings its own batch norm and ReLU."""
    return conv3x3(3, CIFAR_STEM_CHANNELS)


def imagenet_stem() -> nn.Sequential:
    """7x7 convolution, batch norm, ReLU, max pooling: [N, 3, 224, 224] -> [N, 64, 56, 56]."""
    conv = nn.Conv2d(3, IMAGENET_STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(conv, *norm_relu(IMAGENET_STEM_CHANNELS), max_pool())


class StagedNetwork(nn.Module):
    """Images [N, 3, H, W] -> class scores [N, num_classes]. A forward hook on `stages[i]` sees that stage's output.

    preactivation: whether the last stage's output still needs its batch norm and ReLU.
    smallest_input: the least height and width, in pixels, that the network can take.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        channels: int,
        num_classes: int,
        *,
        preactivation: bool,
        smallest_input: int = 1,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.activate = norm_relu(channels) if preactivation else nn.Identity()
        self.fc = nn.Linear(channels, num_classes)
        self.smallest_input = smallest_input

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if min(height, width) < self.smallest_input:
            least = f"{self.smallest_input}x{self.smallest_input}"
            raise ValueError(
                f"images of {height}x{width} pixels are too small: the smallest allowed are {least}"
            )
        features = self.activate(self.stages(self.stem(images)))
        return self.fc(features.mean(dim=(2, 3)))
