"""Parameters, multiply-adds, depth and activation memory of the networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import addmm_flop, conv_flop_count

from models import AttentionOptions, Counts, create_model, resolve_options
from models.attention import AttentionModule
from models.options import MOST_PIXELS, check_integer


def count(name: str, num_classes: int, image_size: int, **options: Any) -> Counts:
    """Count the network `models.create_model(name, num_classes, **options)` at square images of that size in pixels.

    Raises:
        ValueError: for an unknown network, a wrong option, or images that are too small for it.
    """
    check_integer("image_size", image_size, 1, MOST_PIXELS)
    return _count(name, num_classes, image_size, resolve_options(name, options))


@lru_cache(maxsize=256)
def _count(name: str, num_classes: int, image_size: int, options: AttentionOptions | None) -> Counts:
    return count_model(_meta_model(name, num_classes, options), image_size)


def count_model(model: nn.Module, image_size: int) -> Counts:
    """Count a network, on its own device; it is unchanged afterwards."""
    device, training = next(model.parameters()).device, model.training
    model.eval()  # batch norm in training mode would count a batch and, over several workers, wait for the others
    with torch.enable_grad(), metering(model) as meter:  # without gradients nothing would be kept for backward
        scores = model(torch.empty(1, 3, image_size, image_size, device=device))
    model.train(training)
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=meter.multiply_adds,
        trunk_depth=meter.depth(scores),
        activation_bytes=meter.activation_bytes,
    )


@lru_cache(maxsize=1)  # making a network takes as long as counting it, and most are counted at two sizes
def _meta_model(name: str, num_classes: int, options: AttentionOptions | None) -> nn.Module:
    return create_model(name, num_classes, device="meta", **(vars(options) if options else {}))


@contextmanager
def metering(model: nn.Module) -> Iterator[Meter]:
    """Count the work of a network while the context is open; its outputs are meaningless there."""
    with ExitStack() as stack:
        meter = Meter(model)
        for module in model.modules():
            if isinstance(module, AttentionModule):
                stack.enter_context(module.mask.register_forward_hook(meter.leave_out))
        stack.enter_context(saved_tensors_hooks(meter.keep, lambda tensor: tensor))
        stack.enter_context(meter)
        yield meter


class Meter(TorchFunctionMode):
    """Sums over the operations of a network, by the formulas of PyTorch's own counter; see `metering`.

    Attributes:
        multiply_adds: multiply-adds so far.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.multiply_adds = 0
        self._depths: dict[int, tuple[int, Tensor]] = {}  # by id; holding the tensor keeps its id unique
        self._parameters = {_storage_key(parameter) for parameter in model.parameters()}
        self._saved: dict[int, torch.UntypedStorage] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:  # has no multiply-adds, and on the meta device it is most of the time of a count
            output = _BatchNorm.apply(args[0], args[3] if len(args) > 3 else (kwargs or {}).get("weight"))
        else:
            output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            layers = self._add_cost(func, args, output)
            self._set_depth(output, max(map(self.depth, _tensors(args)), default=0) + layers)
        return output

    def _add_cost(self, func: Callable[..., Any], args: tuple[Any, ...], output: Tensor) -> int:
        """Add the multiply-adds of a weighted layer; return 1 for such a layer, else 0."""
        if func is F.conv2d:
            self.multiply_adds += conv_flop_count(list(args[0].shape), list(args[1].shape), list(output.shape)) // 2
        elif func is F.linear:
            self.multiply_adds += addmm_flop(None, args[0].shape, args[1].t().shape) // 2
        else:
            return 0
        return 1

    @property
    def activation_bytes(self) -> int:
        """Bytes that are kept for the backward pass, without parameters."""
        return sum(storage.nbytes() for key, storage in self._saved.items() if key not in self._parameters)

    def depth(self, tensor: Tensor) -> int:
        """Return the number of weighted layers before a tensor, on the longest path."""
        return self._depths.get(id(tensor), (0, tensor))[0]

    def _set_depth(self, tensor: Tensor, depth: int) -> None:
        self._depths[id(tensor)] = (depth, tensor)

    def leave_out(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Leave the layers of a module out of the depth; a forward hook."""
        self._set_depth(output, self.depth(inputs[0]))

    def keep(self, tensor: Tensor) -> Tensor:
        """Record a tensor that is saved for the backward pass."""
        self._saved[_storage_key(tensor)] = tensor.untyped_storage()
        return tensor


class _BatchNorm(torch.autograd.Function):
    """Keeps what batch norm keeps in training mode: input, scale, and the mean and deviation of each channel."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight, torch.empty_like(weight), torch.empty_like(weight))
        return torch.empty_like(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("counting runs forward only")


def _storage_key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # the data pointer of every meta tensor is 0


def _tensors(args: Iterable[Any]) -> Iterator[Tensor]:
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
