"""He initialisation (arXiv:1502.01852) from a generator that belongs to the network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def allocate(model: nn.Module) -> None:
    """Replace the tensors of `model`, in place, by uninitialised ones on the CPU."""
    # nn.Module.to_empty does the same, but it imports PyTorch's symbolic shapes and with them sympy: 0.5 s of each run.
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights of `model`, in place, layer by layer in the order of registration.

    Weights of convolutions and linear layers are normal with variance 2 / fan-in, biases are zero; batch norm has scale
    1, shift 0, running mean 0 and running variance 1. The paper names He initialisation; the fan-in, and the same rule
    for the classifier, are our reading.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _BatchNorm):
            module.reset_parameters()
        else:
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            assert not own, f"no initialisation is known for {name} ({type(module).__name__})"
