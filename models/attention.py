"""The attention module: trunk, soft mask, and their fusion (arXiv:1704.06904, section 3).

The structure follows the authors' published network files, also where they differ from Figure 2 of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.interpolation import Interpolate
from models.options import AttentionOptions
from models.staged import stages_of
from models.units import Unit, conv1x1, max_pool, norm_relu

LOCAL_MASK_UNITS = 3
"""Residual units of the local mask (section 4.1 of the paper, Table 4)."""


class MixedAttention(nn.Module):
    """f1 of Table 1: the sigmoid at every position and channel; values from 0 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class ChannelAttention(nn.Module):
    """f2 of Table 1: every position divided by its L2 norm over the channels; values from -1 to 1."""

    epsilon = 1e-6  # our addition: a position of zeros stays zero, with a finite gradient

    def forward(self, x: Tensor) -> Tensor:
        wide = _precise(x)
        return (wide * (wide.square().sum(dim=1, keepdim=True) + self.epsilon).rsqrt()).to(x.dtype)


class SpatialAttention(nn.Module):
    """f3 of Table 1: the sigmoid of every channel map after standardisation over its positions, image by image."""

    epsilon = 1e-5  # that of batch norm; the paper gives none

    def forward(self, x: Tensor) -> Tensor:
        wide = _precise(x)
        variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
        return torch.sigmoid((wide - mean) * (variance + self.epsilon).rsqrt()).to(x.dtype)


def _precise(x: Tensor) -> Tensor:
    """Return at least float32, because sums over many values lose too much in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "mixed": MixedAttention,
    "channel": ChannelAttention,
    "spatial": SpatialAttention,
}


class SoftMask(nn.Module):
    """The bottom-up top-down mask branch: [N, C, H, W] -> mask of the same shape.

    Down: `poolings` times max pooling and r units, 2r at the lowest level. Up: interpolation to the size of the level
    above, plus one unit (the skip) applied to that level's output, then r units. At the end: interpolation to full size
    without a skip, two 1x1 convolutions and the activation.

    A mask with one pooling has two units for every r, because r counts units between adjacent poolings. This is our
    reading: it gives Attention-452 its published 8.6 million parameters, and it changes nothing at r = 1.
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
    """The mask [N, C, H, W] -> [N, C, H, W] of Table 4's ablation: residual units at full resolution.

    The units also replace the 1x1 convolutions of the encoder-decoder. This is our reading: only with it do both masks
    cost about the same, as the paper says.
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
    """p units, trunk T beside mask M, their fusion H, and p more units: [N, C, H, W] -> [N, C, H, W].

    Forward hooks on `mask`, `trunk` and `fusion` receive M, T and H; see `attention_outputs`.
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
    """Return `count` units that keep the shape."""
    return nn.Sequential(*(unit(channels, channels) for _ in range(count)))


@contextmanager
def attention_outputs(model: nn.Module, *parts: str) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of parts of all attention modules while the context is open.

    Args:
        model: a network of this package.
        *parts: some of "trunk", "mask" and "fusion".

    Yields:
        a dictionary that each forward pass fills: the output [N, C, h, w] of part "mask" of the second module of the
        first stage has the key "s1m2/mask". It stays empty for a network without attention.
    """
    outputs: dict[str, Tensor] = {}
    hooks = []
    for s, stage in enumerate(stages_of(model), start=1):
        modules = (module for module in stage.modules() if isinstance(module, AttentionModule))
        for m, module in enumerate(modules, start=1):
            for part in parts:
                key = f"s{s}m{m}/{part}"
                hooks.append(
                    getattr(module, part).register_forward_hook(
                        lambda _module, _inputs, output, key=key: outputs.update({key: output})
                    )
                )
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
