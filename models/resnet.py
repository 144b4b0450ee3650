"""The residual networks that the paper compares with."""

from __future__ import annotations

from torch import nn

from models.staged import CIFAR_STEM_CHANNELS, StagedNetwork, cifar_stem
from models.units import PreActivationUnit, Unit

CIFAR_CHANNELS = (64, 128, 256)


def cifar_preresnet(num_classes: int, *, units: int) -> StagedNetwork:
    """Pre-activation ResNet for 32x32 images (arXiv:1603.05027): 3 stages, depth 9 * units + 2."""
    stages = []
    in_channels = CIFAR_STEM_CHANNELS
    for index, channels in enumerate(CIFAR_CHANNELS):
        stages.append(
            residual_stage(PreActivationUnit, in_channels, channels, units, stride=min(index, 1) + 1)
        )
        in_channels = channels
    return StagedNetwork(cifar_stem(), stages, in_channels, num_classes, preactivation=True)


def residual_stage(
    unit: type[Unit], in_channels: int, channels: int, units: int, stride: int
) -> nn.Sequential:
    """Units at one resolution; the first carries the stride and the change of width."""
    first = unit(in_channels, channels, stride)
    return nn.Sequential(first, *(unit(channels, channels) for _ in range(units - 1)))
