"""Parameters, multiply-adds, depth and activation memory of the networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import addmm_flop, conv_flop_count

from models import AttentionOptions, create_model, resolve_options
from models.attention import AttentionModule


@dataclass(frozen=True)
class Counts:
    """
    parameters: learnable ones, batch norm's scale and shift among them.
    multiply_adds: of convolutions and linear layers, for one image.
    trunk_depth: convolutions and linear layers on the longest way through the network, the masks left out. (The names
        of wide ResNets count three projections instead of the classifier.)
    activation_bytes: what backward needs kept of the forward pass of one image in float32, parameters left out.
    """

    parameters: int
    multiply_adds: int
    trunk_depth: int
    activation_bytes: int


def count(name: str, num_classes: int, image_size: int, **options: Any) -> Counts:
    """The counts of `models.create_model(name, num_classes, **options)` for square images of `image_size` pixels.

    Raises ValueError for an unknown network, wrong options, or images too small for it.
    """
    return _count(name, num_classes, image_size, resolve_options(name, options))


@lru_cache(maxsize=256)
def _count(name: str, num_classes: int, image_size: int, options: AttentionOptions | None) -> Counts:
    return count_model(_meta_model(name, num_classes, options), image_size)


def count_model(model: nn.Module, image_size: int) -> Counts:
    """The counts of a network, wherever it is; the network is left as it is."""
    device, training = next(model.parameters()).device, model.training
    model.eval()  # batch norm in training would count batches and, over several workers, wait for them
    with torch.enable_grad(), metering(model) as meter:  # what a gradient needs is counted, too
        scores = model(torch.empty(1, 3, image_size, image_size, device=device))
    model.train(training)
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=meter.multiply_adds,
        trunk_depth=meter.depth(scores),
        activation_bytes=meter.activation_bytes,
    )


@lru_cache(maxsize=1)  # to make one takes as long as to count it, and most are counted at two sizes
def _meta_model(name: str, num_classes: int, options: AttentionOptions | None) -> nn.Module:
    return create_model(name, num_classes, device="meta", **(vars(options) if options else {}))


@contextmanager
def metering(model: nn.Module) -> Iterator[Meter]:
    """Count what a network does while the context is open; what it computes there means nothing."""
    with ExitStack() as stack:
        meter = Meter(model)
        for module in model.modules():
            if isinstance(module, AttentionModule):
                stack.enter_context(module.mask.register_forward_hook(meter.leave_out))
        stack.enter_context(saved_tensors_hooks(meter.keep, lambda tensor: tensor))
        stack.enter_context(meter)
        yield meter


class Meter(TorchFunctionMode):
    """The sums; see `metering`. The formulas are those of PyTorch's own counter.

    Batch norm costs nothing here; it is replaced by what it keeps for backward, because on the meta device PyTorch
    would take it apart in Python, which is most of the time of a count.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.multiply_adds = 0
        self._depths: dict[int, tuple[int, Tensor]] = {}  # by id; the tensor is held so that its id stays its own
        self._parameters = {_storage_key(parameter) for parameter in model.parameters()}
        self._saved: dict[int, torch.UntypedStorage] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            output = _BatchNorm.apply(args[0], args[3] if len(args) > 3 else (kwargs or {}).get("weight"))
        else:
            output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            layers = self._add_cost(func, args, output)
            self._set_depth(output, max(map(self.depth, _tensors(args)), default=0) + layers)
        return output

    def _add_cost(self, func: Callable[..., Any], args: tuple[Any, ...], output: Tensor) -> int:
        """Add the multiply-adds of a weighted layer; how many such layers this is."""
        if func is F.conv2d:
            self.multiply_adds += conv_flop_count(list(args[0].shape), list(args[1].shape), list(output.shape)) // 2
        elif func is F.linear:
            self.multiply_adds += addmm_flop(None, args[0].shape, args[1].t().shape) // 2
        else:
            return 0
        return 1

    @property
    def activation_bytes(self) -> int:
        return sum(storage.nbytes() for key, storage in self._saved.items() if key not in self._parameters)

    def depth(self, tensor: Tensor) -> int:
        """Weighted layers behind a tensor, on the longest way."""
        return self._depths.get(id(tensor), (0, tensor))[0]

    def _set_depth(self, tensor: Tensor, depth: int) -> None:
        self._depths[id(tensor)] = (depth, tensor)

    def leave_out(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook for modules whose layers do not count as depth."""
        self._set_depth(output, self.depth(inputs[0]))

    def keep(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is saved for backward."""
        self._saved[_storage_key(tensor)] = tensor.untyped_storage()
        return tensor


class _BatchNorm(torch.autograd.Function):
    """What training mode keeps for backward: the input, the scale, and each channel's mean and deviation."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight, torch.empty_like(weight), torch.empty_like(weight))
        return torch.empty_like(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("counting runs forward only")


def _storage_key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # its address: the data pointer of every meta tensor is 0


def _tensors(args: tuple[Any, ...]) -> Iterator[Tensor]:
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(tuple(value))
