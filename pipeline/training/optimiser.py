"""Stochastic gradient descent as in the paper, and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from pipeline.training.spec import Protocol


def learning_rate(protocol: Protocol, iteration: int) -> float:
    """Learning rate of an iteration (counted from 0): multiplied by gamma at each milestone that was reached."""
    drops = sum(iteration >= milestone for milestone in protocol.milestones)
    return round(protocol.learning_rate * protocol.gamma**drops, 12)  # 0.1 * 0.1 is 0.01


def make_optimiser(parameters: Iterable[nn.Parameter], protocol: Protocol) -> torch.optim.SGD:
    """SGD with (Nesterov) momentum; weight decay on every parameter, batch norm included, as the authors have it."""
    return torch.optim.SGD(
        parameters,
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
        fused=True,
    )
