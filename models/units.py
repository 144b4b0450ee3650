"""Residual units and other layers that the networks share. No convolution has a bias."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with a padding of 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def norm_relu(channels: int) -> nn.Sequential:
    """Return batch norm and ReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def conv_norm(conv: nn.Conv2d) -> nn.Sequential:
    """Return a convolution and batch norm."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


def conv_norm_relu(conv: nn.Conv2d) -> nn.Sequential:
    """Return a convolution, batch norm and ReLU."""
    return nn.Sequential(conv, *norm_relu(conv.out_channels))


class Branches(nn.ModuleList):
    """Parallel branches whose outputs are concatenated along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def max_pool() -> nn.MaxPool2d:
    """Return Caffe's 3x3 max pooling with stride 2: no padding, sizes rounded up (112 -> 56 -> 28 -> 14 -> 7)."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class Unit(nn.Module):
    """A residual unit [N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]."""

    preactivation: ClassVar[bool]
    """Whether the output still needs batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()


class _PreActivation(Unit):
    """Batch norm and ReLU before each convolution; nothing after the sum (arXiv:1603.05027).

    An identity shortcut carries the raw input; a projection takes the activated input, as the branch does.
    """

    preactivation = True

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.activate = norm_relu(in_channels)
        self.branch = self.make_branch(in_channels, out_channels, stride)
        projected = stride != 1 or in_channels != out_channels
        self.shortcut = conv1x1(in_channels, out_channels, stride) if projected else None

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        output: Tensor = self.branch(activated) + shortcut
        return output


class PreActivationUnit(_PreActivation):
    """The bottleneck of pre-activation ResNets and, by the authors' network files, of Attention-56 and Attention-92."""

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        inner = out_channels // 4
        return nn.Sequential(
            conv1x1(in_channels, inner),
            *norm_relu(inner),
            conv3x3(inner, inner, stride),
            *norm_relu(inner),
            conv1x1(inner, out_channels),
        )


class WideUnit(_PreActivation):
    """Two 3x3 convolutions, as in wide ResNets (arXiv:1605.07146)."""

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            conv3x3(in_channels, out_channels, stride),
            *norm_relu(out_channels),
            conv3x3(out_channels, out_channels),
        )


class _PostActivation(Unit):
    """Batch norm after each convolution, ReLU after the sum (arXiv:1512.03385); projections have batch norm, too."""

    preactivation = False

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.branch = self.make_branch(in_channels, out_channels, stride)
        projected = stride != 1 or in_channels != out_channels
        self.shortcut = conv_norm(conv1x1(in_channels, out_channels, stride)) if projected else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return output


class PostActivationUnit(_PostActivation):
    """The bottleneck of the original ResNets, with the stride in the first 1x1 convolution (arXiv:1512.03385)."""

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        inner = out_channels // 4
        return nn.Sequential(
            *conv_norm_relu(conv1x1(in_channels, inner, stride)),
            *conv_norm_relu(conv3x3(inner, inner)),
            *conv_norm(conv1x1(inner, out_channels)),
        )


class ResNeXtUnit(_PostActivation):
    """The 32x4d unit of ResNeXt (arXiv:1611.05431): 32 groups, together half as wide as the output."""

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        inner = out_channels // 2
        return nn.Sequential(
            *conv_norm_relu(conv1x1(in_channels, inner)),
            *conv_norm_relu(conv3x3(inner, inner, stride, groups=32)),
            *conv_norm(conv1x1(inner, out_channels)),
        )


class InceptionUnit(_PostActivation):
    """A simplified Inception-ResNet unit. It is our reading: the paper gives no structure of AttentionInception-56.

    It has the three branches of Inception-ResNet-A (arXiv:1602.07261), joined by a 1x1 convolution: a 1x1 convolution;
    a 1x1 reduction and a 3x3; a 1x1 reduction and two 3x3. All are an eighth as wide as the output, as there, except
    for the last reduction, which is half as wide: with it the network has the published 31.9 million parameters. The
    last convolution of each branch has the stride. The residual is not scaled down.
    """

    def make_branch(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        inner = out_channels // 8
        branches = (
            conv_norm_relu(conv1x1(in_channels, inner, stride)),
            nn.Sequential(
                *conv_norm_relu(conv1x1(in_channels, inner)),
                *conv_norm_relu(conv3x3(inner, inner, stride)),
            ),
            nn.Sequential(
                *conv_norm_relu(conv1x1(in_channels, inner // 2)),
                *conv_norm_relu(conv3x3(inner // 2, inner)),
                *conv_norm_relu(conv3x3(inner, inner, stride)),
            ),
        )
        return nn.Sequential(Branches(branches), *conv_norm(conv1x1(3 * inner, out_channels)))
