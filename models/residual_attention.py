"""Residual attention networks (arXiv:1704.06904)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from torch import nn

from models.attention import AttentionModule
from models.options import AttentionOptions
from models.staged import CIFAR_STEM_CHANNELS, StagedNetwork, cifar_stem
from models.units import PreActivationUnit, Unit


@dataclass(frozen=True)
class Stage:
    """One resolution: a unit that carries the stride, attention modules, then plain units.

    poolings: of each module's mask; they end at the same size in every stage.
    """

    channels: int
    stride: int
    modules: int
    poolings: int
    last_units: int

    def build(self, unit: type[Unit], in_channels: int, options: AttentionOptions) -> nn.Sequential:
        return nn.Sequential(
            unit(in_channels, self.channels, self.stride),
            *(AttentionModule(unit, self.channels, self.poolings, options) for _ in range(self.modules)),
            *(unit(self.channels, self.channels) for _ in range(self.last_units)),
        )


def cifar_attention(num_classes: int, *, modules: int, options: AttentionOptions) -> StagedNetwork:
    """Attention-(36 * modules + 20) for 32x32 images; the depth holds for p = 1, t = 2.

    The authors published no file of it. The paper's text gives three stages with `modules` attention modules and two
    more residual units each; stem and widths (those of ResNet-164), the masks' 3, 2 and 1 poolings (to 4x4, as on
    ImageNet to 7x7) and the plain units' places, one before and one after the modules, are our inference from the published
    parameter counts.
    """
    stages = (Stage(64, 1, modules, 3, 1), Stage(128, 2, modules, 2, 1), Stage(256, 2, modules, 1, 1))
    return _network(
        cifar_stem(), CIFAR_STEM_CHANNELS, stages, PreActivationUnit, num_classes, options, lambda size: size
    )


def _network(
    stem: nn.Module,
    stem_channels: int,
    stages: Sequence[Stage],
    unit: type[Unit],
    num_classes: int,
    options: AttentionOptions,
    stem_size: Callable[[int], int],
) -> StagedNetwork:
    inputs = [stem_channels, *(stage.channels for stage in stages)]
    built = [stage.build(unit, channels, options) for stage, channels in zip(stages, inputs, strict=False)]
    return StagedNetwork(
        stem,
        built,
        inputs[-1],
        num_classes,
        preactivation=unit.preactivation,
        smallest_input=next(size for size in count(1) if _masks_fit(stem_size(size), stages)),
    )


def _masks_fit(size: int, stages: Sequence[Stage]) -> bool:
    """Whether every pooling of every mask still has at least 2x2 points to pool (it halves, rounding down)."""
    for stage in stages:
        size = -(-size // stage.stride)
        if size < 2**stage.poolings:
            return False
    return True
