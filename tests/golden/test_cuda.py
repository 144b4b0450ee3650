"""On a GPU: the golden losses of the CPU, and the same numbers again, bit for bit. Skipped without one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.shards import INDEX, Shards
from pipeline.training.crops import Box
from pipeline.training.decoding import DeviceDecoder, ThreadDecoder
from tests.golden.test_losses import GOLDEN, NETWORKS, TOLERANCE, losses
from tests.unit.data.image_tree import encode

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


def test_nvjpeg_decodes_images_as_the_processor_does_and_twice_the_same(tmp_path: Path) -> None:
    kinds = [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")]
    encoded = [encode(k, 90, 120, *kind) for k, kind in enumerate(kinds)]
    encoded += [encode(8, 90, 120, progressive=True), encode(9, 500, 700)]  # the last is shrunk to less than a half
    starts = np.cumsum([0, *map(len, encoded)])
    rows = [(0, 0, start, len(content), 90, 120) for start, content in zip(starts, encoded, strict=False)]
    (tmp_path / "images.bin").write_bytes(b"".join(encoded))
    shards = Shards(np.array(rows, INDEX), [tmp_path / "images.bin"])
    boxes = [Box(10, 5, 100, 80)] * 5 + [Box(10, 5, 600, 480)]

    def decoded(kind: type[ThreadDecoder] | type[DeviceDecoder]) -> Tensor:
        with ThreadPoolExecutor(2) as pool:
            wait = kind(shards, 64, pool, torch.device("cuda")).begin(range(6), boxes, [False, True] * 3)
            busy = torch.randn(4096, 4096, device="cuda")  # whose memory is free again while the device still reads it
            for _ in range(20):
                busy = busy @ busy / 64
            del busy
            return wait().float()

    once = decoded(DeviceDecoder)
    assert all(torch.equal(decoded(DeviceDecoder), once) for _ in range(5))
    assert (once - decoded(ThreadDecoder)).abs().mean((1, 2, 3)).max() < 3
