"""The ResNets that the paper compares with. With `num_classes` = 0 they return pooled features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.staged import CifarStem, ImageNetStem, StagedNetwork, Stem
from models.units import PostActivationUnit, PreActivationUnit, Unit, WideUnit

IMAGENET_CHANNELS = (256, 512, 1024, 2048)


def cifar_preresnet(num_classes: int, *, units: int) -> StagedNetwork:
    """Return a pre-activation ResNet for 32x32 images (arXiv:1603.05027).

    It has `units` residual units in each stage and a depth of 9 * units + 2.
    """
    return _network(CifarStem(), PreActivationUnit, (64, 128, 256), (units,) * 3, num_classes)


def cifar_wide_resnet(num_classes: int, *, units: int, width: int) -> StagedNetwork:
    """Return a wide ResNet without dropout (arXiv:1605.07146).

    It has `units` residual units in each stage, 16 * width channels in the first, and a depth of 6 * units + 4.
    """
    channels = (16 * width, 32 * width, 64 * width)
    return _network(CifarStem(), WideUnit, channels, (units,) * 3, num_classes)


def preresnet(num_classes: int, *, units: Sequence[int]) -> StagedNetwork:
    """Return a pre-activation ResNet for ImageNet (arXiv:1603.05027), with the stride in the 3x3 convolution.

    Neither torchvision nor timm has ResNet-200 with pre-activation. Its stem pools with a padding of 1, as in the Torch
    code of its authors.
    """
    return _network(
        ImageNetStem(nn.MaxPool2d(3, stride=2, padding=1)), PreActivationUnit, IMAGENET_CHANNELS, units, num_classes
    )


def resnet(num_classes: int, *, units: Sequence[int]) -> StagedNetwork:
    """Return an original ResNet (arXiv:1512.03385), with the stride in the first 1x1 convolution of a unit.

    Only so does ResNet-152 have the 11.3 billion multiply-adds that the paper prints: with the stride in the 3x3
    convolution, as in torchvision and timm, it has 11.5. The stem pools as Caffe does, in which it was published.
    """
    return _network(ImageNetStem(), PostActivationUnit, IMAGENET_CHANNELS, units, num_classes)


def resnext101_32x4d(num_classes: int) -> nn.Module:
    """Return timm's ResNeXt-101 32x4d (arXiv:1611.05431)."""
    import timm

    model: nn.Module = timm.create_model("resnext101_32x4d", pretrained=False, num_classes=num_classes)
    return model


def _network(
    stem: Stem,
    unit: type[Unit],
    channels: Sequence[int],
    units: Sequence[int],
    num_classes: int,
) -> StagedNetwork:
    """Build the stages: each but the first halves the resolution, in its first unit, which also changes the width."""
    stages = []
    in_channels = stem.channels
    for index, (width, count) in enumerate(zip(channels, units, strict=True)):
        first = unit(in_channels, width, 1 if index == 0 else 2)
        stages.append(nn.Sequential(first, *(unit(width, width) for _ in range(count - 1))))
        in_channels = width
    return StagedNetwork(stem, stages, in_channels, num_classes, preactivation=unit.preactivation)
