"""How batch-norm groups of a fixed number of images lie over the workers' shares of a batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupPlan:
    """How a worker's share of the batch meets the batch-norm group.

    Attributes:
        micro_batch: images that pass through the network at once, on each worker.
        workers: workers that share one group's statistics.
    """

    micro_batch: int
    workers: int


def plan_groups(batch_size: int, group: int, world_size: int) -> GroupPlan:
    """Lay the groups of `group` images over the workers' shares of the batch.

    Raises:
        ValueError: where that does not come out even.
    """
    if batch_size % world_size:
        raise ValueError(f"batch_size = {batch_size} cannot be shared evenly by {world_size} workers")
    if batch_size % group:
        raise ValueError(f"batch_norm_group = {group} does not divide batch_size = {batch_size}")
    share = batch_size // world_size
    if share >= group and share % group == 0:
        return GroupPlan(micro_batch=group, workers=1)
    if group % share == 0:
        return GroupPlan(micro_batch=share, workers=group // share)
    raise ValueError(
        f"batch_norm_group = {group} fits neither into nor around a worker's share of {share} images"
        f" (batch_size = {batch_size}, {world_size} workers): one must divide the other"
    )
