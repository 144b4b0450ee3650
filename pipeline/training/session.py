"""What the training loop needs of its surroundings; `pipeline.launch.ray_train` provides another session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Session(Protocol):
    """A worker's place among the workers of its run."""

    rank: int
    world_size: int
    device: torch.device

    def report(self, metrics: Mapping[str, float], *, last: bool) -> None:
        """Called by every worker after every evaluation, equally often; `last` marks the end of the run."""

    def about_to_be_lost(self) -> bool:
        """Whether a machine of the run has just been announced to go: time for a checkpoint.

        Called by every worker, equally often; true once for each announcement.
        """


class LocalSession:
    """One worker in this process."""

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def report(self, metrics: Mapping[str, float], *, last: bool) -> None:
        """Nobody listens: the files of the run folder say it all."""

    def about_to_be_lost(self) -> bool:
        """Nobody announces it: a polite kill is `should_stop`."""
        return False


def agree(session: Session, value: int) -> int:
    """The first worker's value, on every worker."""
    if session.world_size == 1:
        return value
    import torch.distributed as dist

    shared = torch.tensor([value], device=session.device)
    dist.broadcast(shared, src=0)
    return int(shared.item())


def total(session: Session, sums: Tensor) -> list[int]:
    """The elements of an integer tensor [n], summed over the workers."""
    if session.world_size > 1:
        import torch.distributed as dist

        sums = sums.clone()
        dist.all_reduce(sums)
    return sums.tolist()
