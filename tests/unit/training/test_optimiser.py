from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.runs.spec import RunSpec
from pipeline.training.optimiser import SGD, learning_rate


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 0.1), (63_999, 0.1), (64_000, 0.01), (95_999, 0.01), (96_000, 0.001), (159_999, 0.001)]
)
def test_the_rate_drops_where_the_paper_says(spec: RunSpec, iteration: int, rate: float) -> None:
    paper = replace(spec.protocol, learning_rate=0.1, iterations=160_000, milestones=(64_000, 96_000))
    assert learning_rate(paper, iteration) == rate


def test_a_step_is_nesterov_momentum_with_weight_decay_on_every_parameter(spec: RunSpec) -> None:
    protocol = replace(spec.protocol, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    model = torch.nn.Module()
    model.weight = parameter = torch.nn.Parameter(start.clone())
    optimiser = SGD(model, protocol)
    expected, velocity = start.clone(), torch.zeros(2, dtype=torch.float64)
    for step in range(1, 4):
        gradient = torch.tensor([0.5, 0.25], dtype=torch.float64) * step
        parameter.grad = gradient.clone()
        optimiser.step(0.1)
        decayed = gradient + 0.01 * expected
        velocity = decayed if step == 1 else 0.9 * velocity + decayed
        expected = expected - 0.1 * (decayed + 0.9 * velocity)
    torch.testing.assert_close(parameter.detach(), expected)


def test_steps_are_those_of_pytorchs_optimiser(spec: RunSpec) -> None:
    def network() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        return model

    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(9))
    ours, theirs, protocol = network(), network(), replace(spec.protocol, learning_rate=0.1)
    optimiser = SGD(ours, protocol)
    reference = torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=True, fused=True)
    for _ in range(3):
        for model, one in ((ours, optimiser), (theirs, reference)):
            one.zero_grad()
            model(images).square().mean().backward()
        optimiser.step(0.1)
        reference.step()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert torch.equal(optimiser.momentum[name], reference.state[other]["momentum_buffer"]), name
