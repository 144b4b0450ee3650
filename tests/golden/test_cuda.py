"""On a GPU: the golden losses of the CPU, and the same numbers again, bit for bit. Skipped without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.golden.test_losses import GOLDEN, NETWORKS, TOLERANCE, losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_gpu_trains_as_the_cpu_does_and_twice_the_same(network: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())["losses"][network]
    once, again = (losses(network, tmp_path / name, device="cuda") for name in ("once", "again"))
    assert once == again
    assert once == pytest.approx(golden, abs=TOLERANCE)


@pytest.mark.slow
def test_a_compiled_network_trains_the_same_on_a_gpu(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())["losses"]["cifar_attention56"]
    found = losses("cifar_attention56", tmp_path, device="cuda", compiled=True)
    assert found == pytest.approx(golden, abs=TOLERANCE)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_the_backward_pass_of_overlapping_max_pools_is_deterministic(memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 4, (64, 64, 32, 32), generator=generator)  # small integers: many ties
    images = drawn.float().cuda().contiguous(memory_format=memory_format).requires_grad_()
    pooled = F.max_pool2d(images, 3, stride=2, ceil_mode=True)
    weights = torch.randn(pooled.shape, generator=generator).cuda()

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(pooled, images, weights, retain_graph=True)[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(20))
