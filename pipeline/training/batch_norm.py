"""Training batch-norm statistics over a fixed group of images, whatever the number of workers.

Workers whose share of the batch is smaller than a group synchronise within groups of workers; a worker whose
share is larger passes it through the network group by group and accumulates gradients (see `loop`). PyTorch's
SyncBatchNorm refuses the CPU, so the synchronised layer here is a small differentiable one that works on Gloo
and NCCL alike.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.training.groups import GroupPlan
from pipeline.training.session import Session
from pipeline.utils.errors import UserError


class _Normalise(torch.autograd.Function):
    """Batch normalisation of [N, C, H, W] with statistics over all workers of a process group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor, group: Any) -> Tensor:
        normalised = (_exact(x) - mean[:, None, None]) * inv_std[:, None, None]
        ctx.save_for_backward(normalised, weight, inv_std)
        ctx.group = group
        return (normalised * weight[:, None, None] + bias[:, None, None]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normalised, weight, inv_std = ctx.saved_tensors
        grad = _exact(grads[0])
        grad_bias = grad.sum((0, 2, 3))
        grad_weight = (grad * normalised).sum((0, 2, 3))
        means = torch.stack([grad_bias, grad_weight])
        dist.all_reduce(means, group=ctx.group)
        means /= grad.numel() // grad.shape[1] * dist.get_world_size(ctx.group)
        scale = (weight * inv_std)[:, None, None]
        grad_x = scale * (grad - means[0][:, None, None] - normalised * means[1][:, None, None])
        return grad_x.to(grads[0].dtype), grad_weight, grad_bias, None, None, None


def _exact(x: Tensor) -> Tensor:
    """In single precision at least, whatever autocast has made of it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class GroupBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose training statistics run over the same layer of several workers.

    Every worker must hold the same number of values a channel. Running statistics move as in the one-worker
    layer (the variance by its unbiased estimate over the whole group).
    """

    process_group: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W], in the input's type."""
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            local = torch.stack(torch.var_mean(_exact(x.detach()), (0, 2, 3), correction=0))
            parts = [torch.empty_like(local) for _ in range(dist.get_world_size(self.process_group))]
            dist.all_gather(parts, local, group=self.process_group)
            variances, means = torch.stack(parts).double().unbind(1)
            mean = means.mean(0)
            variance = variances.mean(0) + (means - mean).square().mean(0)
            self._move_running_statistics(mean, variance, count * len(parts))
        inv_std = (variance + self.eps).rsqrt().to(local.dtype)
        out: Tensor = _Normalise.apply(x, self.weight, self.bias, mean.to(local.dtype), inv_std, self.process_group)
        return out

    def _move_running_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)


def synchronise(model: nn.Module, process_group: Any) -> None:
    """Replace, in place, every BatchNorm2d of a model by one that shares statistics over a process group.

    UserError for a model with other layers of batch norm, which no group of workers can share.
    """
    _replace(model, process_group)
    if any(isinstance(layer, _BatchNorm) and not isinstance(layer, GroupBatchNorm2d) for layer in model.modules()):
        raise UserError(
            f"{type(model).__name__} has batch norms that workers cannot share: give it fewer workers, so that each"
            " one's share of the batch holds a whole batch_norm_group"
        )


def _replace(model: nn.Module, process_group: Any) -> None:
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d:
            layer = GroupBatchNorm2d(child.num_features, child.eps, child.momentum, device="meta")
            layer.weight, layer.bias = child.weight, child.bias
            layer.running_mean, layer.running_var = child.running_mean, child.running_var
            layer.num_batches_tracked = child.num_batches_tracked
            layer.process_group = process_group
            setattr(model, name, layer)
        else:
            _replace(child, process_group)


class RunningStatistics:
    """Keeps running statistics those of one worker that sees all groups of a batch, in their order.

    Each worker moves them by its own groups alone: by k of them from `old` to ``keep**k * old + moved``, where
    `keep` is 1 less the momentum. As that is linear, what all workers have moved is put together after each step,
    discounted by the groups that come after. Nothing of this is needed where a batch is one group.

    Args:
        model: whose layers of batch norm are meant.
        groups: how the groups lie over the workers.
        batch_size: images in the global batch.
        session: this worker among all.
    """

    def __init__(self, model: nn.Module, groups: GroupPlan, batch_size: int, session: Session) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        self._buffers = [
            buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None
        ]
        self._counters = [layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None]
        mine = batch_size // session.world_size // groups.micro_batch  # groups of a step
        self._others = mine * (session.world_size // groups.workers - 1)
        later = self._others - mine * (session.rank // groups.workers)
        keep = torch.cat(
            [
                torch.full((2 * layer.num_features,), 1 - float(layer.momentum or 0.0), dtype=torch.float64)
                for layer in layers
            ]
        ).to(session.device)
        self._mine, self._all = keep**mine, keep ** (mine + self._others)
        self._weight = keep**later / groups.workers  # all workers of a group bring the same
        self._old = self._flat()

    def _flat(self) -> Tensor:
        return torch.cat([buffer.double() for buffer in self._buffers])

    def begin(self) -> None:
        """Before a step: remember where the statistics stand."""
        self._old = self._flat()

    def combine(self) -> None:
        """After a step: move them by what all workers have seen. Every worker must call it."""
        moved = (self._flat() - self._mine * self._old) * self._weight
        dist.all_reduce(moved)
        combined = self._all * self._old + moved
        sizes = [buffer.numel() for buffer in self._buffers]
        torch._foreach_copy_(self._buffers, list(combined.split(sizes)))
        torch._foreach_add_(self._counters, self._others)
