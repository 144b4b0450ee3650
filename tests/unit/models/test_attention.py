"""The attention module against the authors' published layers, and against the known mistakes of other ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import AttentionOptions, create_model
from models.attention import AttentionModule, ChannelAttention, LocalMask, SoftMask, SpatialAttention
from models.initialisation import initialise
from models.interpolation import Interpolate
from models.units import InceptionUnit, PreActivationUnit, ResNeXtUnit, Unit, max_pool

PAPER = AttentionOptions()
UNITS = [PreActivationUnit, ResNeXtUnit, InceptionUnit]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def module(
    channels: int = 64, poolings: int = 3, options: AttentionOptions = PAPER, unit: type[Unit] = PreActivationUnit
) -> AttentionModule:
    made = AttentionModule(unit, channels, poolings, options)
    initialise(made, seed=0)
    return made


@contextmanager
def watched(*modules: nn.Module) -> Iterator[list[tuple[nn.Module, tuple[Tensor, ...], Tensor]]]:
    """The calls of these modules in order: module, inputs, output."""
    calls: list[tuple[nn.Module, tuple[Tensor, ...], Tensor]] = []
    hooks = [m.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs, output))) for m in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


# The module written a second time, flat, from the published network files.


def published_unit(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    def norm_relu(x: Tensor, layer: str) -> Tensor:
        scale, shift = weights[f"{name}.{layer}.weight"], weights[f"{name}.{layer}.bias"]
        return F.relu(F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-5))

    y = F.conv2d(norm_relu(x, "activate.0"), weights[f"{name}.branch.0.weight"])
    y = F.conv2d(norm_relu(y, "branch.1"), weights[f"{name}.branch.3.weight"], padding=1)
    return x + F.conv2d(norm_relu(y, "branch.4"), weights[f"{name}.branch.6.weight"])


def caffe_pool(x: Tensor) -> Tensor:
    """3x3 windows at every second position from 0 on, as many as start inside; the last are cut at the border."""
    rows = [x[:, :, i : i + 3].amax(2) for i in range(0, x.shape[2] - 1, 2)]
    x = torch.stack(rows, 2)
    return torch.stack([x[..., i : i + 3].amax(3) for i in range(0, x.shape[3] - 1, 2)], 3)


def published_module(x: Tensor, w: dict[str, Tensor], poolings: int) -> Tensor:
    def norm_relu(x: Tensor, layer: str) -> Tensor:
        return F.relu(F.batch_norm(x, None, None, w[f"{layer}.weight"], w[f"{layer}.bias"], training=True, eps=1e-5))

    def resize(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)

    x = published_unit(x, w, "pre.0")
    trunk = published_unit(published_unit(x, w, "trunk.0"), w, "trunk.1")
    levels, y = [], x
    for level in range(poolings - 1):
        y = published_unit(caffe_pool(y), w, f"mask.down.{level}.0")
        levels.append(y)
    y = published_unit(published_unit(caffe_pool(y), w, "mask.lowest.0"), w, "mask.lowest.1")
    for level in reversed(range(poolings - 1)):
        y = resize(y, levels[level]) + published_unit(levels[level], w, f"mask.skip.{level}")
        y = published_unit(y, w, f"mask.up.{level}.0")
    y = F.conv2d(norm_relu(resize(y, x), "mask.linear.0"), w["mask.linear.2.weight"])
    mask = torch.sigmoid(F.conv2d(norm_relu(y, "mask.linear.3"), w["mask.linear.5.weight"]))
    return published_unit(mask * trunk + trunk, w, "post.0")


@pytest.mark.parametrize(("poolings", "size"), [(3, 14), (3, 32), (2, 9), (1, 4), (1, 7)])
def test_the_module_computes_what_the_published_layers_do(poolings: int, size: int) -> None:
    ours = module(16, poolings).double()
    x = noise(3, 16, size, size).double()
    weights = {name: parameter.detach() for name, parameter in ours.named_parameters()}
    torch.testing.assert_close(ours(x), published_module(x, weights, poolings))


def published_next_unit(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    def norm(x: Tensor, layer: str) -> Tensor:
        scale, shift = w[f"{name}.branch.{layer}.weight"], w[f"{name}.branch.{layer}.bias"]
        return F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-5)

    y = F.relu(norm(F.conv2d(x, w[f"{name}.branch.0.weight"]), "1"))
    y = F.relu(norm(F.conv2d(y, w[f"{name}.branch.3.weight"], padding=1, groups=32), "4"))
    return F.relu(norm(F.conv2d(y, w[f"{name}.branch.6.weight"]), "7") + x)


def published_next_module(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """With two poolings: no norm before the first 1x1 convolution, no ReLU after the skip's sum nor the fusion."""

    def resize(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)

    x = published_next_unit(x, w, "pre.0")
    trunk = published_next_unit(published_next_unit(x, w, "trunk.0"), w, "trunk.1")
    level = published_next_unit(caffe_pool(x), w, "mask.down.0.0")
    y = published_next_unit(published_next_unit(caffe_pool(level), w, "mask.lowest.0"), w, "mask.lowest.1")
    y = published_next_unit(resize(y, level) + published_next_unit(level, w, "mask.skip.0"), w, "mask.up.0.0")
    y = F.conv2d(resize(y, x), w["mask.linear.0.weight"])
    scale, shift = w["mask.linear.1.weight"], w["mask.linear.1.bias"]
    y = F.relu(F.batch_norm(y, None, None, scale, shift, training=True, eps=1e-5))
    mask = torch.sigmoid(F.conv2d(y, w["mask.linear.3.weight"]))
    return published_next_unit(mask * trunk + trunk, w, "post.0")


def test_the_resnext_module_computes_what_the_published_layers_do() -> None:
    ours = module(64, 2, unit=ResNeXtUnit).double()
    x = noise(3, 64, 9, 9).double()
    weights = {name: parameter.detach() for name, parameter in ours.named_parameters()}
    torch.testing.assert_close(ours(x), published_next_module(x, weights))


def test_every_parameter_of_the_module_is_used() -> None:
    ours = module()
    ours(noise(2, 64, 16, 16)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in ours.parameters())


# What public ports do otherwise.


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 14, 28, 55, 56, 112])
def test_pooling_is_caffes_without_padding_and_rounded_up(size: int) -> None:
    x = noise(1, 2, size, size)
    assert torch.equal(max_pool()(x), caffe_pool(x))
    if size > 2:
        padded = F.max_pool2d(x, 3, 2, padding=1)
        assert padded.shape != max_pool()(x).shape or not torch.equal(padded, max_pool()(x))


def test_maps_of_112_shrink_to_7_as_in_the_published_files() -> None:
    sizes, x = [], noise(1, 1, 112, 112)
    for _ in range(4):
        x = max_pool()(x)
        sizes.append(x.shape[-1])
    assert sizes == [56, 28, 14, 7]


def test_interpolation_gives_a_size_and_adds_nothing() -> None:
    """The Interp layer's second input is a size; ports that add it read the layer wrongly."""
    mask = module().mask
    assert isinstance(mask, SoftMask)
    with watched(mask.interpolate, mask.linear, mask.lowest) as calls:
        mask(noise(2, 64, 16, 16))
    resized = [(inputs, output) for called, inputs, output in calls if called is mask.interpolate]
    assert [tuple(inputs[1]) for inputs, _ in resized] == [(4, 4), (8, 8), (16, 16)]
    (lowest,) = [output for called, _, output in calls if called is mask.lowest]
    torch.testing.assert_close(
        resized[0][1], F.interpolate(lowest, (4, 4), mode="bilinear", align_corners=True), rtol=1e-4, atol=1e-5
    )


def test_there_is_no_skip_at_full_resolution() -> None:
    mask = module().mask
    assert isinstance(mask, SoftMask)
    with watched(mask.interpolate, mask.linear, *mask.skip) as calls:
        mask(noise(2, 64, 16, 16))
    assert len(mask.skip) == 2
    assert [tuple(output.shape[-2:]) for called, _, output in calls if called in set(mask.skip)] == [(4, 4), (8, 8)]
    *_, (_, _, last_resized), (_, (into_linear,), _) = calls
    assert into_linear is last_resized


@pytest.mark.parametrize(
    ("poolings", "r", "units"), [(3, 1, 8), (2, 1, 5), (1, 1, 2), (3, 3, 20), (2, 3, 13), (1, 3, 2)]
)
def test_the_mask_has_its_units(poolings: int, r: int, units: int) -> None:
    """2nr + n - 1 for n poolings, 2r of them at the lowest level; two where r has nothing to count."""
    mask = SoftMask(PreActivationUnit, 16, poolings, AttentionOptions(r=r))
    assert sum(isinstance(part, PreActivationUnit) for part in mask.modules()) == units
    assert len(mask.lowest) == (2 * r if poolings > 1 else 2)


@pytest.mark.parametrize("name", ["cifar_attention56", "cifar_attention92"])
def test_cifar_stages_have_the_inferred_widths_sizes_and_poolings(name: str) -> None:
    model = create_model(name, device="meta")
    with watched(model.stem, *model.stages) as calls:
        model(torch.empty(2, 3, 32, 32, device="meta"))
    assert [tuple(output.shape[1:]) for _, _, output in calls] == [
        (16, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8)
    ]  # fmt: skip
    for stage, poolings in zip(model.stages, (3, 2, 1), strict=True):
        first, *modules, last = stage
        assert isinstance(first, PreActivationUnit)
        assert isinstance(last, PreActivationUnit)
        assert len(modules) == {"cifar_attention56": 1, "cifar_attention92": 2}[name]
        assert all(len(part.mask.down) + 1 == poolings for part in modules)


@pytest.mark.parametrize(("name", "modules"), [("attention56", (1, 1, 1)), ("attentionnext92", (1, 2, 3))])
def test_imagenet_stages_follow_table_2(name: str, modules: tuple[int, ...]) -> None:
    model = create_model(name, device="meta")
    masks = [part.mask for part in model.modules() if isinstance(part, AttentionModule)]
    with watched(model.stem, *model.stages, *(mask.lowest for mask in masks)) as calls:
        model(torch.empty(2, 3, 224, 224, device="meta"))
    shapes = {called: tuple(output.shape[1:]) for called, _, output in calls}
    assert [shapes[part] for part in (model.stem, *model.stages)] == [
        (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)
    ]  # fmt: skip
    assert all(shapes[mask.lowest][1:] == (7, 7) for mask in masks)
    for stage, count in zip(model.stages, (*modules, 0), strict=True):
        kinds = [type(part) for part in stage]
        assert kinds.count(AttentionModule) == count
        assert kinds[0] is not AttentionModule
    assert len(model.stages[3]) == 3


# Activations, learning, masks.


@pytest.mark.parametrize("mask", ["encoder_decoder", "local"])
@pytest.mark.parametrize(("activation", "least"), [("mixed", 0.0), ("channel", -1.0), ("spatial", 0.0)])
def test_a_mask_stays_in_its_range(activation: str, least: float, mask: str) -> None:
    ours = module(16, 2, AttentionOptions(activation=activation, mask=mask))
    for scale in (0.0, 1.0, 1e4):
        values = ours.mask(scale * noise(3, 16, 8, 8))
        assert values.shape == (3, 16, 8, 8)
        assert values.isfinite().all()
        assert values.min() >= least
        assert values.max() <= 1


def test_channel_attention_has_unit_norm_over_the_channels() -> None:
    x = noise(2, 64, 5, 5)
    mask = ChannelAttention()(x)
    torch.testing.assert_close(mask.norm(dim=1), torch.ones(2, 5, 5))
    torch.testing.assert_close(mask, x / x.norm(dim=1, keepdim=True))


def test_the_epsilons_are_those_that_are_stated() -> None:
    """Where norm or variance is as small as they are, their size is half of the result."""
    x = torch.tensor([1e-3, -1e-3], dtype=torch.float64).reshape(1, 1, 1, 2).expand(1, 4, 1, 2)
    torch.testing.assert_close(ChannelAttention()(x), x / (4e-6 + 1e-6) ** 0.5)
    torch.testing.assert_close(SpatialAttention()(x), torch.sigmoid(x / (1e-6 + 1e-5) ** 0.5))


def test_channel_attention_of_zeros_is_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    mask = ChannelAttention()(x)
    mask.sum().backward()
    assert not mask.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_spatial_attention_standardises_each_map_of_each_image() -> None:
    x = 3 * noise(2, 4, 6, 7) + noise(2, 4, 1, 1, seed=1)
    standardised = torch.special.logit(SpatialAttention()(x))
    torch.testing.assert_close(standardised.mean((2, 3)), torch.zeros(2, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.var((2, 3), correction=0), torch.ones(2, 4), atol=1e-3, rtol=0)
    alone = SpatialAttention()(x[:1, 2:3])
    torch.testing.assert_close(SpatialAttention()(x)[:1, 2:3], alone)


@pytest.mark.parametrize("activation", ["channel", "spatial"])
def test_normalising_activations_are_precise_in_bfloat16(activation: str) -> None:
    x = 10 * noise(2, 64, 4, 4)
    kind = {"channel": ChannelAttention, "spatial": SpatialAttention}[activation]()
    mask = kind(x.bfloat16())
    assert mask.dtype == torch.bfloat16
    torch.testing.assert_close(mask.float(), kind(x), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("mask", ["encoder_decoder", "local"])
@pytest.mark.parametrize("learning", ["arl", "nal"])
def test_arl_is_one_plus_m_times_t_and_nal_is_m_times_t(learning: str, mask: str, unit: type[Unit]) -> None:
    ours = module(64, 2, AttentionOptions(learning=learning, mask=mask), unit)
    with watched(ours.trunk, ours.mask, ours.fusion, ours.post) as calls:
        ours(noise(2, 64, 8, 8))
    seen = {called: output for called, _, output in calls}
    trunk, m = seen[ours.trunk], seen[ours.mask]
    torch.testing.assert_close(seen[ours.fusion], (1 + m) * trunk if learning == "arl" else m * trunk)
    (into_post,) = [inputs[0] for called, inputs, _ in calls if called is ours.post]
    assert into_post is seen[ours.fusion]


def test_trunk_and_mask_start_from_the_same_features() -> None:
    ours = module()
    with watched(ours.pre, ours.trunk, ours.mask) as calls:
        ours(noise(2, 64, 8, 8))
    (_, _, before), (_, (into_trunk,), _), (_, (into_mask,), _) = calls
    assert into_trunk is before
    assert into_mask is before


def test_p_and_t_count_units() -> None:
    ours = module(16, 2, AttentionOptions(p=2, t=4, r=3))
    assert (len(ours.pre), len(ours.trunk), len(ours.post)) == (2, 4, 2)


@pytest.mark.parametrize("activation", ["mixed", "channel", "spatial"])
def test_the_local_mask_is_three_units_at_full_resolution_and_the_activation(activation: str) -> None:
    options = AttentionOptions(mask="local", activation=activation)
    mask = module(16, 3, options).mask
    assert isinstance(mask, LocalMask)
    assert [type(unit) for unit in mask.units] == [PreActivationUnit] * 3
    x = noise(2, 16, 8, 8)
    assert torch.equal(mask(x), mask.activation(mask.units(x)))
    assert not any(isinstance(part, nn.MaxPool2d | Interpolate) for part in mask.modules())
    assert {*mask._modules} == {"units", "activation"}


# Layer order inside units (facts of the published files).


def test_every_convolution_of_attention56_but_the_first_is_fed_by_batch_norm_and_relu() -> None:
    model = create_model("attention56", 2)
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    rectified: list[Tensor] = []
    fed = []
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output: rectified.append(output))
        for part in model.modules()
        if isinstance(part, nn.ReLU)
    ]
    hooks += [
        part.register_forward_pre_hook(lambda _part, inputs: fed.append(any(inputs[0] is made for made in rectified)))
        for part in convolutions
    ]
    with torch.no_grad():
        model(noise(2, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert len(fed) == len(convolutions) == 110
    assert fed == [False] + [True] * (len(fed) - 1)


def test_no_convolution_has_a_bias_but_the_classifier_has_one() -> None:
    for name in ("attention56", "attentionnext56", "attentioninception56", "cifar_attention56"):
        model = create_model(name, device="meta")
        assert all(part.bias is None for part in model.modules() if isinstance(part, nn.Conv2d))
        assert model.fc.bias is not None


def test_an_identity_shortcut_is_raw_and_a_projection_is_activated() -> None:
    x = noise(2, 16, 4, 4)
    same, wider = PreActivationUnit(16, 16), PreActivationUnit(16, 32, 2)
    for unit in (same, wider):
        initialise(unit, 0)
        nn.init.zeros_(unit.branch[-1].weight)
    assert same.shortcut is None
    assert torch.equal(same(x), x)
    assert wider.shortcut is not None
    torch.testing.assert_close(wider(x), wider.shortcut(F.relu(F.batch_norm(x, None, None, training=True))))


def test_the_3x3_convolution_of_a_unit_has_the_stride() -> None:
    for unit in (PreActivationUnit(64, 128, 2), ResNeXtUnit(64, 128, 2)):
        strides = {part.kernel_size: part.stride for part in unit.branch.modules() if isinstance(part, nn.Conv2d)}
        assert strides == {(1, 1): (1, 1), (3, 3): (2, 2)}


def test_a_resnext_unit_has_32_groups_half_as_wide_and_its_mask_no_norm_before_the_linear_layers() -> None:
    unit = ResNeXtUnit(256, 256)
    (grouped,) = [part for part in unit.modules() if isinstance(part, nn.Conv2d) and part.groups > 1]
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (32, 128, 128)
    mask = SoftMask(ResNeXtUnit, 64, 1, PAPER)
    assert [type(part) for part in mask.linear] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert isinstance(create_model("attentionnext56", device="meta").activate, nn.Identity)
