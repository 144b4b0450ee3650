from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.training.optimiser import learning_rate, make_optimiser
from pipeline.training.spec import RunSpec


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 0.1), (63_999, 0.1), (64_000, 0.01), (95_999, 0.01), (96_000, 0.001), (159_999, 0.001)]
)
def test_the_rate_drops_where_the_paper_says(spec: RunSpec, iteration: int, rate: float) -> None:
    paper = replace(spec.protocol, learning_rate=0.1, iterations=160_000, milestones=(64_000, 96_000))
    assert learning_rate(paper, iteration) == rate


def test_a_step_is_nesterov_momentum_with_weight_decay_on_every_parameter(spec: RunSpec) -> None:
    protocol = replace(spec.protocol, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    optimiser = make_optimiser([parameter], protocol)
    expected, velocity = start.clone(), torch.zeros(2, dtype=torch.float64)
    for step in range(1, 4):
        gradient = torch.tensor([0.5, 0.25], dtype=torch.float64) * step
        parameter.grad = gradient.clone()
        optimiser.step()
        decayed = gradient + 0.01 * expected
        velocity = decayed if step == 1 else 0.9 * velocity + decayed
        expected = expected - 0.1 * (decayed + 0.9 * velocity)
    torch.testing.assert_close(parameter.detach(), expected)
