"""Residual attention networks (arXiv:1704.06904)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from torch import nn

from models.attention import AttentionModule
from models.options import AttentionOptions
from models.staged import CifarStem, ImageNetStem, StagedNetwork, Stem
from models.units import InceptionUnit, PreActivationUnit, ResNeXtUnit, Unit

UNITS: dict[str, type[Unit]] = {
    "preactivation": PreActivationUnit,
    "resnext": ResNeXtUnit,
    "inception": InceptionUnit,
}


@dataclass(frozen=True)
class Stage:
    """One resolution: a unit with the stride, attention modules, then plain units.

    Attributes:
        channels: channels of its output.
        stride: stride of its first unit.
        modules: number of attention modules.
        poolings: poolings of each module's mask; with them the masks of all stages end at the same size.
        last_units: number of plain units after the modules.
    """

    channels: int
    stride: int
    modules: int
    poolings: int
    last_units: int

    def build(self, unit: type[Unit], in_channels: int, options: AttentionOptions) -> nn.Sequential:
        """Return the layers of the stage."""
        return nn.Sequential(
            unit(in_channels, self.channels, self.stride),
            *(AttentionModule(unit, self.channels, self.poolings, options) for _ in range(self.modules)),
            *(unit(self.channels, self.channels) for _ in range(self.last_units)),
        )


def cifar_attention(num_classes: int, *, modules: int, options: AttentionOptions) -> StagedNetwork:
    """Return Attention-(36 * modules + 20) for 32x32 images (Table 6); that depth is for p = 1 and t = 2.

    The authors published no file of it. The paper gives three stages of `modules` attention modules and two plain
    residual units each, with channels like ResNet's. We infer from the published numbers of parameters: the stem, the
    widths 64, 128 and 256, masks with 3, 2 and 1 poolings (down to 4x4, as to 7x7 on ImageNet), and one plain unit
    before the modules and one after.
    """
    stages = (Stage(64, 1, modules, 3, 1), Stage(128, 2, modules, 2, 1), Stage(256, 2, modules, 1, 1))
    return _network(CifarStem(), stages, PreActivationUnit, num_classes, options)


def imagenet_attention(
    num_classes: int, *, modules: tuple[int, int, int], unit: str, options: AttentionOptions
) -> StagedNetwork:
    """Return Attention-56 or 92, AttentionNeXt or AttentionInception for ImageNet (Table 2 of the paper).

    The layers are those of the authors' published network files (Attention-56, Attention-92, AttentionNeXt-56 and 92).
    AttentionInception-56 is our reading: Attention-56 with `InceptionUnit`, as AttentionNeXt-56 is with `ResNeXtUnit`.

    Args:
        num_classes: number of classes; 0 for pooled features.
        modules: attention modules of the first three stages.
        unit: a key of `UNITS`.
        options: how the attention modules are built.
    """
    first, second, third = modules
    stages = (
        Stage(256, 1, first, 3, 0),
        Stage(512, 2, second, 2, 0),
        Stage(1024, 2, third, 1, 0),
        Stage(2048, 2, 0, 0, 2),
    )
    return _network(ImageNetStem(), stages, UNITS[unit], num_classes, options)


def _network(
    stem: Stem, stages: Sequence[Stage], unit: type[Unit], num_classes: int, options: AttentionOptions
) -> StagedNetwork:
    inputs = (stem.channels, *(stage.channels for stage in stages[:-1]))
    return StagedNetwork(
        stem,
        [stage.build(unit, channels, options) for stage, channels in zip(stages, inputs, strict=True)],
        stages[-1].channels,
        num_classes,
        preactivation=unit.preactivation,
        smallest_input=next(size for size in count(1) if _masks_fit(stem.output_size(size), stages)),
    )


def _masks_fit(size: int, stages: Sequence[Stage]) -> bool:
    """Return whether images of `size` pixels after the stem suffice for all poolings, which halve it, rounded down."""
    for stage in stages:
        size = (size + stage.stride - 1) // stage.stride
        if size < 2**stage.poolings:
            return False
    return True
