"""Bilinear interpolation with aligned corners, as products with two fixed matrices.

It computes the authors' Interp layer (position ratio (in - 1) / (out - 1)), which is PyTorch's
`F.interpolate(mode="bilinear", align_corners=True)`. Unlike that function it has a deterministic gradient on CUDA and
keeps the memory format.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor, nn


class Interpolate(nn.Module):
    """Resizes images [N, C, h, w] to [N, C, *size]."""

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = images.shape[-2:]
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if channels_last else ((0, 1, 2, 3), (0, 1, 2, 3))
        row_dim, column_dim = order.index(2), order.index(3)
        output = images.permute(order)
        output = _resize(output, column_dim, _matrix_for(output, width, size[1]))
        output = _resize(output, row_dim, _matrix_for(output, height, size[0]))
        return output.permute(back)


def _resize(images: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """Return `images` with one dimension multiplied by `matrix` [out, in]."""
    before, after = images.shape[:dim], images.shape[dim + 1 :]
    flat = images.reshape(prod(before), images.shape[dim], prod(after))
    product = torch.bmm(matrix.expand(flat.shape[0], -1, -1), flat)
    return product.reshape(*before, matrix.shape[0], *after)


def _matrix_for(images: Tensor, inputs: int, outputs: int) -> Tensor:
    # A tensor made while tracing, with or without a subclass of Tensor to trace by, must not outlive the trace.
    if torch.compiler.is_compiling() or type(images) is not Tensor:
        return interpolation_matrix(inputs, outputs, images.dtype, images.device)
    return _cached_matrix(inputs, outputs, images.dtype, images.device)


def interpolation_matrix(inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix [outputs, inputs] that interpolates a line of points linearly and keeps its end points."""
    precise = torch.promote_types(dtype, torch.float32)
    position = torch.arange(outputs, dtype=precise, device=device) * (inputs - 1) / max(outputs - 1, 1)
    distance = position[:, None] - torch.arange(inputs, dtype=precise, device=device)
    return (1 - distance.abs()).clamp(min=0).to(dtype)


@lru_cache(maxsize=64)
def _cached_matrix(inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not serve training later
        return interpolation_matrix(inputs, outputs, dtype, device)
