"""He initialisation (arXiv:1502.01852) from a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

_FILLING: Final = frozenset(
    (
        nn.init.kaiming_uniform_,
        nn.init.uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.constant_,
        Tensor.fill_,
        Tensor.zero_,
    )
)


class Unfilled(TorchFunctionMode):
    """While this is open, new layers do not fill their parameters and buffers; `initialise` does so later.

    On the meta device there is nothing to fill, and PyTorch takes a third of a network's construction for it.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every weight of `model` in place, layer by layer in the order of registration.

    Convolutions and the classifier: normal with variance 2 / fan-in; biases zero; batch norm: scale 1, shift 0, running
    mean 0 and variance 1. The paper names He initialisation; fan-in, and the classifier drawn alike, are our reading.
    """
    generator = torch.Generator().manual_seed(seed)
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
