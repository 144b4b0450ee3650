"""Every network of the table: it trains, evaluates, and keeps its memory format, its precision and its state."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from models import create_model, find_network, list_models
from models.staged import stages_of

CLASSES = 5
QUICK = {"cifar_attention56", "cifar_preresnet164", "cifar_wrn16_8"}
"""Networks whose real passes take well under a second; the slow tests run the others."""

DEEPER = {f"cifar_attention{depth}" for depth in (128, 164, 236, 452)}

ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in list_models()]
OPTIONS = [
    {},
    {"learning": "nal"},
    {"activation": "channel"},
    {"activation": "spatial", "mask": "local"},
    {"p": 2, "t": 3, "r": 2},
]


def sizes(name: str) -> list[int]:
    if name.startswith("cifar_"):
        return [16, 32]
    return [75, 96] if name.startswith("inception") else [32, 64]


def batch(size: int, images: int = 2) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(size))


def step(model: nn.Module, images: Tensor) -> Tensor:
    """Loss of a training pass, its gradients in the parameters."""
    labels = torch.arange(len(images)) % CLASSES
    loss = F.cross_entropy(model(images).float(), labels)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in {"cifar_attention452", "cifar_preresnet1001"} else ())
        for name in list_models()
    ],
)
def test_every_network_maps_images_of_several_sizes_to_scores(name: str) -> None:
    model = create_model(name, CLASSES, device="meta").eval()
    own = find_network(name).image_size
    for height, width in ((own, own), (own + 96, own + 32)):
        assert model(torch.empty(2, 3, height, width, device="meta")).shape == (2, CLASSES)


@pytest.mark.parametrize("name", list_models())
def test_without_classes_every_network_gives_the_features_of_its_classifier(name: str) -> None:
    size = sizes(name)[0]
    features = create_model(name, 0, device="meta").eval()(torch.empty(2, 3, size, size, device="meta"))
    model = create_model(name, CLASSES, device="meta").eval()
    assert features.shape == (2, model.num_features)
    last = next(part for part in reversed(list(model.modules())) if isinstance(part, nn.Linear))
    assert (last.in_features, last.out_features) == (model.num_features, CLASSES)


@pytest.mark.parametrize("name", list_models())
def test_every_network_takes_other_numbers_of_channels(name: str) -> None:
    model, size = create_model(name, CLASSES, in_chans=5, device="meta").eval(), sizes(name)[0]
    assert model(torch.empty(2, 5, size, size, device="meta")).shape == (2, CLASSES)
    with pytest.raises(RuntimeError, match="channel"):
        model(torch.empty(2, 3, size, size, device="meta"))


def test_the_weights_for_other_channels_are_he_normal_and_trainable() -> None:
    model = create_model("cifar_wrn16_8", CLASSES, in_chans=30)
    assert model.stem[0].weight.std().item() == pytest.approx((2 / (30 * 9)) ** 0.5, rel=0.05)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in list_models() if name not in DEEPER])
def test_forward_is_forward_features_and_forward_head(name: str) -> None:
    model, size = create_model(name, CLASSES, device="meta").eval(), 96
    features = model.forward_features(torch.empty(2, 3, size, size, device="meta"))
    assert features.dim() == 4
    assert model.forward_head(features).shape == (2, CLASSES)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)


def test_features_and_head_compute_what_the_network_does() -> None:
    model, images = create_model("cifar_attention56", CLASSES, seed=4).eval(), batch(16)
    with torch.no_grad():
        features = model.forward_features(images)
        pooled = model.forward_head(features, pre_logits=True)
        assert torch.equal(model.forward_head(features), model(images))
        assert torch.equal(pooled, features.mean((2, 3)))
        assert torch.equal(create_model("cifar_attention56", 0, seed=4).eval()(images), pooled)


@pytest.mark.parametrize("name", list_models())
def test_features_only_gives_the_output_of_every_stage(name: str) -> None:
    model, size = create_model(name, features_only=True, device="meta").eval(), find_network(name).image_size
    maps = model(torch.empty(2, 3, size, size, device="meta"))
    assert len(maps) == (4 if size == 224 else 3)
    assert all(x.shape[2] >= y.shape[2] and x.shape[1] <= y.shape[1] for x, y in pairwise(maps))


def test_features_only_sees_what_hooks_on_the_stages_see() -> None:
    images, seen = batch(16), []
    model = create_model("cifar_attention56", seed=2).eval()
    for stage in stages_of(model):
        stage.register_forward_hook(lambda _stage, _inputs, output: seen.append(output))
    with torch.no_grad():
        model(images)
        maps = create_model("cifar_attention56", features_only=True, seed=2).eval()(images)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, seen, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_every_network_trains_and_evaluates(name: str) -> None:
    model = create_model(name, CLASSES).to(memory_format=torch.channels_last)
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            part.momentum = 1.0  # two steps alone would leave evaluation with statistics of nothing
    for size in reversed(sizes(name)):
        model.zero_grad()
        assert step(model.train(), batch(size)).isfinite()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    images = batch(sizes(name)[0]).double()  # deep networks untrained amplify float32's rounding beyond any bound
    with torch.inference_mode():
        scores = model.double().eval()(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert scores.isfinite().all()
    torch.testing.assert_close(scores, alone, rtol=1e-3, atol=1e-3 * scores.abs().max().item())


@pytest.mark.parametrize("name", ALL)
def test_every_network_comes_from_its_seed_and_comes_back_from_its_state(name: str) -> None:
    model, other = (create_model(name, CLASSES, seed=1) for _ in range(2))
    images = batch(sizes(name)[0])
    with torch.no_grad():
        drawn = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(first, second) for first, second in drawn)
        model(images)  # running statistics move
        assert not torch.equal(model.eval()(images), other.eval()(images))
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(images), other(images))


@pytest.mark.parametrize("name", ALL)
def test_every_network_keeps_channels_last_from_end_to_end(name: str) -> None:
    model = create_model(name, CLASSES).to(memory_format=torch.channels_last)
    strayed = []

    def check(part: nn.Module, _inputs: object, output: Tensor) -> None:
        if output.dim() == 4 and not output.is_contiguous(memory_format=torch.channels_last):
            strayed.append(type(part).__name__)

    for part in model.modules():
        part.register_forward_hook(check)
    size = sizes(name)[0]
    images = batch(size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model(images.contiguous())
        strayed.clear()
        scores = model(images)
    assert strayed == []
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3 * scores.abs().max().item())


@pytest.mark.parametrize("name", ALL)
def test_every_network_trains_in_bfloat16(name: str) -> None:
    model = create_model(name, CLASSES).to(memory_format=torch.channels_last)
    images = batch(sizes(name)[0], 4).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(images)
        assert scores.dtype == torch.bfloat16
        loss = step(model, images)
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_trains_at_both_precisions(options: dict[str, object]) -> None:
    model = create_model("cifar_attention56", CLASSES, **options).to(memory_format=torch.channels_last)
    images = batch(16, 8).contiguous(memory_format=torch.channels_last)
    exact = step(model, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = step(model, images)
    assert rounded.item() == pytest.approx(exact.item(), rel=0.15)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in DEEPER else ())  # more of the same modules
        for name in list_models("*attention*")
    ],
)
def test_options_work_on_every_attention_network(name: str, options: dict[str, object]) -> None:
    model = create_model(name, CLASSES, device="meta", **options).eval()
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("cifar_attention56", 8),
        ("cifar_attention92", 8),
        ("attention56", 31),
        ("attentionnext56", 31),
        ("attentioninception56", 31),
        ("inception_resnet_v1", 75),
        ("inception_resnet_v2", 75),
    ],
)
def test_images_too_small_are_refused_with_the_smallest_allowed(name: str, least: int) -> None:
    model = create_model(name, CLASSES, device="meta").eval()
    assert model(torch.empty(1, 3, least, least, device="meta")).shape == (1, CLASSES)
    for height, width in ((least - 1, least), (least, least - 1)):
        with pytest.raises(ValueError, match=f"images of {height}x{width} .* smallest allowed are {least}x{least}"):
            model(torch.empty(1, 3, height, width, device="meta"))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_smallest_size_is_the_same_for_all_options(options: dict[str, object]) -> None:
    model = create_model("cifar_attention56", CLASSES, **options)
    assert model.smallest_input == 8
    assert step(model, batch(8, 4)).isfinite()


def test_a_step_learns() -> None:
    """Twelve steps on one batch bring its loss down: gradients point where they should."""
    model = create_model("cifar_attention56", CLASSES).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(step(model, batch(16, 10)).item())
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]
