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
    """Replace, in place, every BatchNorm2d of a model by one that shares statistics over a process group."""
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d:
            layer = GroupBatchNorm2d(child.num_features, child.eps, child.momentum, device="meta")
            layer.weight, layer.bias = child.weight, child.bias
            layer.running_mean, layer.running_var = child.running_mean, child.running_var
            layer.num_batches_tracked = child.num_batches_tracked
            layer.process_group = process_group
            setattr(model, name, layer)
        else:
            synchronise(child, process_group)
