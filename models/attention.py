"""The attention module: trunk, soft mask, and their fusion (arXiv:1704.06904, section 3).

The structure is that of the authors' published network files; where those and the drawing (Fig. 2) differ, the files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.interpolation import Interpolate
from models.options import AttentionOptions
from models.units import Unit, conv1x1, max_pool, norm_relu

LOCAL_MASK_UNITS = 3
"""Residual units of the local mask (section 4.1 of the paper, Table 4)."""


class MixedAttention(nn.Module):
    """f1: the sigmoid of every position and channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class ChannelAttention(nn.Module):
    """f2: every position divided by its L2 norm over the channels; values from -1 to 1.

    The guard against a zero norm is ours; with it a position of zeros stays zero and its gradient finite.
    """

    epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        wide = _precise(x)
        return (wide * (wide.square().sum(dim=1, keepdim=True) + self.epsilon).rsqrt()).to(x.dtype)


class SpatialAttention(nn.Module):
    """f3: the sigmoid of every channel map, standardised over its positions image by image.

    The paper gives no epsilon; ours is that of batch normalisation.
    """

    epsilon = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        wide = _precise(x)
        variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
        return torch.sigmoid((wide - mean) * (variance + self.epsilon).rsqrt()).to(x.dtype)


def _precise(x: Tensor) -> Tensor:
    """Sums over many values are not left to half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "mixed": MixedAttention,
    "channel": ChannelAttention,
    "spatial": SpatialAttention,
}


class SoftMask(nn.Module):
    """The bottom-up top-down mask branch: [N, C, H, W] -> mask of the same shape.

    Down: `poolings` times max pooling and r units, 2r at the lowest level. Up: interpolation to the size of the level
    above, plus one unit (the skip) applied to that level's output, then r units. At the end interpolation to full size,
    without a skip there, two 1x1 convolutions and the activation.

    With one pooling the mask keeps two units whatever r: r counts units between adjacent poolings. This, our reading,
    is what brings Attention-452 to its published 8.6 million parameters; at r = 1 it changes nothing.
    """

    def __init__(self, unit: type[Unit], channels: int, poolings: int, options: AttentionOptions) -> None:
        super().__init__()
        r = options.r if poolings > 1 else 1
        levels = poolings - 1  # between full size and the lowest
        self.pool = max_pool()
        self.down = nn.ModuleList(stack(unit, channels, r) for _ in range(levels))
        self.lowest = stack(unit, channels, 2 * r)
        self.skip = nn.ModuleList(unit(channels, channels) for _ in range(levels))
        self.up = nn.ModuleList(stack(unit, channels, r) for _ in range(levels))
        self.interpolate = Interpolate()
        self.linear = nn.Sequential(
            *(norm_relu(channels) if unit.preactivation else ()),
            conv1x1(channels, channels),
            *norm_relu(channels),
            conv1x1(channels, channels),
        )
        self.activation = ACTIVATIONS[options.activation]()

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        y = x
        for units in self.down:
            y = units(self.pool(y))
            outputs.append(y)
        y = self.lowest(self.pool(y))
        for output, skip, units in zip(reversed(outputs), reversed(self.skip), reversed(self.up), strict=True):
            y = units(self.interpolate(y, output.shape[-2:]) + skip(output))
        mask: Tensor = self.activation(self.linear(self.interpolate(y, x.shape[-2:])))
        return mask


class LocalMask(nn.Module):
    """The ablation of Table 4: residual units at full resolution instead of the encoder-decoder.

    That the units replace the whole mask, its 1x1 convolutions too, is our reading: it is the one that fits the paper's
    remark that both masks cost the same.
    """

    def __init__(self, unit: type[Unit], channels: int, options: AttentionOptions) -> None:
        super().__init__()
        self.units = stack(unit, channels, LOCAL_MASK_UNITS)
        self.activation = ACTIVATIONS[options.activation]()

    def forward(self, x: Tensor) -> Tensor:
        mask: Tensor = self.activation(self.units(x))
        return mask


class Fusion(nn.Module):
    """H = (1 + M) * T for attention residual learning, H = M * T for naive attention learning."""

    def __init__(self, learning: str) -> None:
        super().__init__()
        self.residual = learning == "arl"

    def forward(self, trunk: Tensor, mask: Tensor) -> Tensor:
        return torch.addcmul(trunk, mask, trunk) if self.residual else mask * trunk


class AttentionModule(nn.Module):
    """p units, then trunk T and mask M side by side, their fusion H, and p units more; shape kept.

    A forward hook sees M on `mask`, T on `trunk`, H on `fusion`.
    """

    def __init__(self, unit: type[Unit], channels: int, poolings: int, options: AttentionOptions) -> None:
        super().__init__()
        self.pre = stack(unit, channels, options.p)
        self.trunk = stack(unit, channels, options.t)
        self.mask: nn.Module = (
            LocalMask(unit, channels, options)
            if options.mask == "local"
            else SoftMask(unit, channels, poolings, options)
        )
        self.fusion = Fusion(options.learning)
        self.post = stack(unit, channels, options.p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        output: Tensor = self.post(self.fusion(self.trunk(x), self.mask(x)))
        return output


def stack(unit: type[Unit], channels: int, count: int) -> nn.Sequential:
    """`count` units that keep the shape."""
    return nn.Sequential(*(unit(channels, channels) for _ in range(count)))
