"""The common structure of the networks: a stem, stages of units, global average pooling and a classifier."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.units import conv3x3, max_pool, norm_relu


class Stem(nn.Sequential):
    """The layers before the first unit."""

    channels: int

    def output_size(self, size: int) -> int:
        """Return height (or width) of the output for images of that height (or width), in pixels."""
        raise NotImplementedError


class CifarStem(Stem):
    """One 3x3 convolution [N, 3, H, W] -> [N, 16, H, W]; batch norm and ReLU are those of the first unit."""

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
    """A network from images [N, 3, H, W] to class scores [N, num_classes].

    A forward hook on `stages[i]` receives the output of stage i.

    Args:
        stem: layers before the first stage.
        stages: the stages in order.
        channels: channels of the last stage.
        num_classes: number of classes; 0 for pooled features [N, num_features] instead of scores.
        preactivation: whether the output of the last stage still needs batch norm and ReLU.
        smallest_input: least height and width, in pixels, of images; derived from the stem if None.
        embed: layers between the pooling and the classifier, with the number of features that they give.

    Attributes:
        num_features: number of features before the classifier.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        channels: int,
        num_classes: int,
        *,
        preactivation: bool,
        smallest_input: int | None = None,
        embed: tuple[nn.Module, int] | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.activate = norm_relu(channels) if preactivation else nn.Identity()
        self.embed, self.num_features = embed or (nn.Identity(), channels)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if smallest_input is None:
            assert isinstance(stem, Stem)
            smallest_input = next(size for size in range(1, 8) if stem.output_size(size) > 0)
        self.smallest_input = smallest_input

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature maps [N, C, h, w] before the global average pooling; ValueError for too small images."""
        refuse_smaller(images, self.smallest_input)
        features: Tensor = self.activate(self.stages(self.stem(images)))
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the class scores [N, num_classes] of feature maps; with `pre_logits` the features before them."""
        pooled: Tensor = self.embed(features.mean(dim=(2, 3)))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


STAGES = (("layer1", "layer2", "layer3", "layer4"), ("repeat", "repeat_1", "block8"))
"""timm's names of the last part of each stage, in its ResNets and in its Inception-ResNet-v2."""


def stages_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules of a network whose outputs are the outputs of its stages."""
    stages = getattr(model, "stages", None)
    if isinstance(stages, nn.Sequential):
        return list(stages)
    return [getattr(model, name) for names in STAGES if all(hasattr(model, name) for name in names) for name in names]


class StageFeatures(nn.Module):
    """Maps images [N, in_chans, H, W] to the outputs [N, C, h, w] of all stages of `network`, as a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        hooks = [
            stage.register_forward_hook(lambda _stage, _inputs, output: outputs.append(output))
            for stage in stages_of(self.network)
        ]
        try:
            self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


def set_input_channels(model: nn.Module, channels: int) -> None:
    """Replace the weight of the first convolution, in place, by an uninitialised one for that many channels."""
    conv = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    conv.in_channels = channels
    conv.weight = nn.Parameter(torch.empty(conv.out_channels, channels, *conv.kernel_size, device=conv.weight.device))


def refuse_smaller(images: Tensor, smallest: int) -> None:
    """Raise ValueError for images [N, C, H, W] of less than `smallest` pixels in height or width."""
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise ValueError(
            f"images of {height}x{width} pixels are too small: the smallest allowed are {smallest}x{smallest}"
        )
