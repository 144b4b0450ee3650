"""Stochastic gradient descent as in the paper, and its learning-rate schedule."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from pipeline.runs.spec import Protocol


def learning_rate(protocol: Protocol, iteration: int) -> float:
    """Learning rate of an iteration (counted from 0): multiplied by gamma at each milestone that was reached."""
    drops = sum(iteration >= milestone for milestone in protocol.milestones)
    return round(protocol.learning_rate * protocol.gamma**drops, 12)  # 0.1 * 0.1 is 0.01


class SGD:
    """Stochastic gradient descent with (Nesterov) momentum; weight decay on every parameter, batch norm included.

    The arithmetic is PyTorch's, through its functional interface: the first use of a `torch.optim.Optimizer` imports
    the compiler, which costs every run more than two seconds at its start.

    Attributes:
        parameters: of the network, by name.
        momentum: the buffers of those that have been moved, by name.
    """

    def __init__(self, model: nn.Module, protocol: Protocol) -> None:
        self.protocol = protocol
        self.parameters = dict(model.named_parameters())
        self.momentum: dict[str, Tensor] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient."""
        moved = {name: parameter for name, parameter in self.parameters.items() if parameter.grad is not None}
        buffers = [self.momentum.get(name) for name in moved]
        with torch.no_grad():
            sgd(
                list(moved.values()),
                [parameter.grad for parameter in moved.values() if parameter.grad is not None],
                buffers,
                fused=True,
                foreach=False,
                lr=learning_rate,
                momentum=self.protocol.momentum,
                nesterov=self.protocol.nesterov,
                weight_decay=self.protocol.weight_decay,
                dampening=0.0,
                maximize=False,
            )
        self.momentum = {name: buffer for name, buffer in zip(moved, buffers, strict=True) if buffer is not None}
