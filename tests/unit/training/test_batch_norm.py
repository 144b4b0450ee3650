from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from pipeline.training import batch_norm
from pipeline.training.batch_norm import RunningStatistics, synchronise
from pipeline.training.groups import GroupPlan, plan_groups
from pipeline.utils.errors import UserError


@pytest.mark.parametrize(
    ("batch", "group", "workers", "plan"),
    [
        (64, 64, 1, GroupPlan(micro_batch=64, workers=1)),
        (64, 64, 4, GroupPlan(micro_batch=16, workers=4)),
        (256, 32, 1, GroupPlan(micro_batch=32, workers=1)),
        (256, 32, 8, GroupPlan(micro_batch=32, workers=1)),
        (256, 32, 16, GroupPlan(micro_batch=16, workers=2)),
    ],
)
def test_groups_are_laid_over_the_workers(batch: int, group: int, workers: int, plan: GroupPlan) -> None:
    assert plan_groups(batch, group, workers) == plan


@pytest.mark.parametrize(
    ("batch", "group", "workers", "words"),
    [
        (64, 64, 3, "batch_size = 64 cannot be shared evenly by 3 workers"),
        (64, 48, 1, "batch_norm_group = 48 does not divide batch_size = 64"),
        (96, 48, 3, "batch_norm_group = 48 fits neither into nor around a worker's share of 32 images"),
    ],
)
def test_groups_that_do_not_come_out_even_are_refused(batch: int, group: int, workers: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_groups(batch, group, workers)


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(4)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def images() -> torch.Tensor:
    return torch.randn(8, 3, 7, 6, generator=torch.Generator().manual_seed(1)) * 2 + 1


def gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights' gradients of a loss that is a mean over images, the running statistics, and the input's gradient."""
    x = x.clone().requires_grad_()
    (model(x) ** 3).mean((1, 2, 3)).mean().backward()
    assert x.grad is not None
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {**found, **dict(model.named_buffers()), "x": x.grad}


def worker(rank: int, folder: str, world_size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    model = network()
    synchronise(model, dist.group.WORLD)
    torch.save(gradients(model, images().chunk(world_size)[rank]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_normalise_as_one_would(tmp_path: Path, workers: int) -> None:
    expected = gradients(network(), images())
    mp.spawn(worker, (str(tmp_path), workers), nprocs=workers)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(workers)]
    for name, value in expected.items():
        if name == "x":  # each worker's loss is a mean over its own share
            found = torch.cat([part[name] for part in parts]) / workers
        elif name.endswith(("weight", "bias")):
            found = torch.stack([part[name] for part in parts]).mean(0)
        else:
            found = parts[-1][name]
        torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


STEPS, BATCH, GROUP = 3, 16, 4


def moved(rank: int, workers: int, model: nn.Module) -> None:
    """Pass a worker's groups of each batch through a model; workers that share a group all see the whole of it."""
    plan = plan_groups(BATCH, GROUP, workers)
    session: Any = SimpleNamespace(rank=rank, world_size=workers, device=torch.device("cpu"))
    running = RunningStatistics(model, plan, BATCH, session)
    groups = BATCH // GROUP // (workers // plan.workers)
    for step in range(STEPS):
        batch = torch.randn(BATCH, 3, 7, 6, generator=torch.Generator().manual_seed(step)) * (step + 1) + step
        first = rank // plan.workers * groups
        running.begin()
        for group in batch.split(GROUP)[first : first + groups]:
            model(group)
        running.combine()


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_running_statistics_do_not_depend_on_the_number_of_workers(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = network()
    for step in range(STEPS):
        batch = torch.randn(BATCH, 3, 7, 6, generator=torch.Generator().manual_seed(step)) * (step + 1) + step
        for group in batch.split(GROUP):
            alone(group)
    together, barrier = [network() for _ in range(workers)], Barrier(workers)
    brought: dict[int, torch.Tensor] = {}

    def all_reduce(tensor: torch.Tensor) -> None:
        brought[id(tensor)] = tensor
        barrier.wait(30)
        total = torch.stack([*brought.values()]).sum(0)
        barrier.wait(30)
        tensor.copy_(total)
        brought.clear()
        barrier.wait(30)

    monkeypatch.setattr(batch_norm.dist, "all_reduce", all_reduce)
    threads = [Thread(target=moved, args=(rank, workers, together[rank])) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in together:
        for (name, expected), found in zip(alone.named_buffers(), model.buffers(), strict=True):
            torch.testing.assert_close(
                found, expected, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_batch_norms_that_workers_cannot_share_are_refused() -> None:
    with pytest.raises(UserError, match="batch norms that workers cannot share"):
        synchronise(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3)), None)
