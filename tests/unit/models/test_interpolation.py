"""The interpolation against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from models.interpolation import Interpolate

SIZES = [
    ((4, 4), (8, 8)),
    ((7, 7), (14, 14)),
    ((2, 3), (5, 7)),
    ((1, 1), (2, 2)),
    ((10, 10), (19, 20)),
    ((4, 4), (1, 3)),
]


def images(size: tuple[int, int], *, channels_last: bool = True, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(2, 6, *size, generator=generator, dtype=torch.float64).to(dtype)
    return made.contiguous(memory_format=torch.channels_last) if channels_last else made


def torchs(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_it_equals_torchs_forward_and_backward(
    source: tuple[int, int], target: tuple[int, int], channels_last: bool
) -> None:
    ours, theirs = (images(source, channels_last=channels_last).requires_grad_() for _ in range(2))
    result, expected = Interpolate()(ours, target), torchs(theirs, target)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    gradient = images(target)
    result.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels_last", [True, False])
def test_it_keeps_the_memory_format(channels_last: bool) -> None:
    kept = torch.channels_last if channels_last else torch.contiguous_format
    x = images((4, 4), channels_last=channels_last).requires_grad_()
    result = Interpolate()(x, (8, 8))
    assert result.is_contiguous(memory_format=kept)
    result.sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=kept)


def test_it_works_in_bfloat16() -> None:
    x = images((4, 4), dtype=torch.bfloat16)
    result = Interpolate()(x, (8, 8))
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), torchs(x.double(), (8, 8)), rtol=0.02, atol=0.02)


def test_it_works_under_autocast() -> None:
    x = images((4, 4), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = Interpolate()(x, (8, 8))
    torch.testing.assert_close(result.float(), torchs(x, (8, 8)), rtol=0.03, atol=0.03)


def test_corners_stay_where_they_are() -> None:
    x = images((3, 5), dtype=torch.float32)
    result = Interpolate()(x, (11, 9))
    assert torch.equal(result[..., ::10, ::8], x[..., ::2, ::4])


def test_a_first_use_in_inference_mode_does_not_spoil_training() -> None:
    size = (13, 17)  # used nowhere else: the matrices are made here
    with torch.inference_mode():
        Interpolate()(images((3, 4)), size)
    x = images((3, 4)).requires_grad_()
    Interpolate()(x, size).sum().backward()
    assert x.grad is not None


def test_it_works_on_the_meta_device() -> None:
    assert Interpolate()(images((4, 4)).to("meta"), (8, 8)).shape == (2, 6, 8, 8)


def test_a_use_while_tracing_does_not_spoil_later_ones() -> None:
    with FakeTensorMode():
        Interpolate()(torch.empty(1, 1, 3, 3), (7, 5))
    assert Interpolate()(torch.ones(1, 1, 3, 3), (7, 5)).eq(1).all()
