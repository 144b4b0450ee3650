"""torch.compile and torch.export of the attention networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from models import create_model, list_models
from models.attention import AttentionModule
from models.initialisation import initialise
from models.options import AttentionOptions
from models.units import PreActivationUnit

ATTENTION = list_models("*attention*")


def batch(size: int, images: int = 2, channels: int = 3) -> Tensor:
    made = torch.randn(images, channels, size, size, generator=torch.Generator().manual_seed(size))
    return made.contiguous(memory_format=torch.channels_last)


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(images).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item() + 1e-7)


@pytest.mark.parametrize(
    "activation",
    ["mixed", pytest.param("channel", marks=pytest.mark.slow), pytest.param("spatial", marks=pytest.mark.slow)],
)
def test_the_attention_module_is_one_graph_with_the_same_gradients(activation: str) -> None:
    torch._dynamo.reset()
    module = AttentionModule(PreActivationUnit, 16, 2, AttentionOptions(activation=activation))
    initialise(module, 0)
    module.to(memory_format=torch.channels_last).eval()
    images = batch(8, channels=16)
    expected = gradients(module, images)
    close(gradients(torch.compile(module, backend="aot_eager", fullgraph=True), images), expected)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTENTION)
def test_an_attention_network_is_captured_once_and_whole(name: str) -> None:
    torch._dynamo.reset()
    model = create_model(name, 5).to(memory_format=torch.channels_last)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    size = 16 if name.startswith("cifar_") else 64
    with torch.no_grad():
        for _ in range(3):
            compiled(batch(size))
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTENTION)
def test_an_attention_network_is_exported_for_any_batch(name: str) -> None:
    model = create_model(name, 5).eval()
    size = 16 if name.startswith("cifar_") else 64
    dynamic = ({0: torch.export.Dim("batch", min=1, max=512)},)
    exported = torch.export.export(model, (batch(size, 3),), dynamic_shapes=dynamic).module()
    for images in (batch(size, 1), batch(size, 4)):
        torch.testing.assert_close(exported(images), model(images), rtol=1e-4, atol=1e-4)


def test_the_attention_module_is_exported_for_any_batch() -> None:
    module = AttentionModule(PreActivationUnit, 16, 2, AttentionOptions()).eval()
    dynamic = ({0: torch.export.Dim("batch", min=1, max=512)},)
    exported = torch.export.export(module, (batch(8, 3, channels=16),), dynamic_shapes=dynamic).module()
    for images in (batch(8, 1, channels=16), batch(8, 5, channels=16)):
        torch.testing.assert_close(exported(images), module(images), rtol=1e-4, atol=1e-4)
