"""Residual units and the other layers that the networks share. No convolution has a bias."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def max_pool() -> nn.MaxPool2d:
    """Caffe's 3x3 max pooling with stride 2: no padding, sizes rounded up (112 -> 56 -> 28 -> 14 -> 7)."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class Unit(nn.Module):
    """A residual unit [N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]."""

    preactivation: ClassVar[bool]

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()


class PreActivationUnit(Unit):
    """The pre-activation bottleneck unit of arXiv:1603.05027, as the authors' published network files have it.

    An identity shortcut carries the raw input; a projection takes the activated input that it shares with the branch.
    The stride is that of the 3x3 convolution.
    """

    preactivation = True

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        inner = out_channels // 4
        self.activate = norm_relu(in_channels)
        self.branch = nn.Sequential(
            conv1x1(in_channels, inner),
            *norm_relu(inner),
            conv3x3(inner, inner, stride),
            *norm_relu(inner),
            conv1x1(inner, out_channels),
        )
        projected = stride != 1 or in_channels != out_channels
        self.shortcut = conv1x1(in_channels, out_channels, stride) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return self.branch(activated) + shortcut
