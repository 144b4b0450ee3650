"""Weights come from the seed alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import create_model

SMALL = ["cifar_attention56", "cifar_preresnet164"]


def test_equal_seeds_give_equal_weights_and_other_seeds_others() -> None:
    first, second, other = (create_model("cifar_attention56", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


@pytest.mark.parametrize("name", [*SMALL, "resnext101_32x4d"])
def test_the_global_random_state_is_neither_read_nor_changed(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = create_model(name, 2)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        second = create_model(name, 2)
    assert torch.equal(next(first.parameters()), next(second.parameters()))


@pytest.mark.parametrize("name", [*SMALL, "attentionnext56"])
def test_weights_are_he_normal_over_the_fan_in(name: str) -> None:
    deviations = []
    for part in create_model(name, 100).modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            deviations.append(part.weight.detach() * (fan_in / 2) ** 0.5)
            if part.bias is not None:
                assert not part.bias.any()
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all()
            assert not part.bias.any()
            assert not part.running_mean.any()
            assert (part.running_var == 1).all()
            assert part.num_batches_tracked == 0
            assert (part.eps, part.momentum) == (1e-5, 0.1)
    everything = torch.cat([values.flatten() for values in deviations])
    assert abs(everything.mean().item()) < 0.01
    assert everything.std().item() == pytest.approx(1, abs=0.01)
    assert all(values.std().item() == pytest.approx(1, abs=0.25) for values in deviations)


def test_the_first_weights_are_those_that_they_always_were() -> None:
    """A change here changes every result: the draws, their order, or PyTorch's generator are no longer the same."""
    model = create_model("cifar_attention56", seed=0)
    first, last = model.stem[0].weight.flatten()[:3].tolist(), model.fc.weight.flatten()[-3:].tolist()
    assert first == pytest.approx([-0.306414813, -0.313632727, -0.068198852])
    assert last == pytest.approx([0.236501530, 0.028466690, 0.065286919])
