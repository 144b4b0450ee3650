"""One, two and four workers train alike: the losses of the first 20 steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from pipeline.runs.execution import Execution
from pipeline.runs.records import Sums
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from pipeline.training import environment, loop
from pipeline.training.loop import make_network
from pipeline.training.session import LocalSession
from tests.golden.test_losses import noise_images
from tests.plans import make_protocol

BATCH, WORKERS = 16, (1, 2, 4)
# The first steps of such a network are chaotic in single precision: one thread more changes the second loss by 6e-3 at
# a rate of 0.01. There, a rate that leaves the weights nearly alone shows that batches, crops, flips and statistics are
# the same; in double precision an ordinary rate shows that the steps are.
STEPS_AND_RATE = {torch.float32: (20, 1e-7), torch.float64: (8, 1e-2)}


class GlooSession(LocalSession):
    """One of several worker processes on this machine."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__("cpu")
        self.rank, self.world_size = rank, world_size


def losses(rank: int, world_size: int, folder: Path, spec: RunSpec, dtype: torch.dtype, steps: int) -> None:
    """What each process does; the first writes the mean loss of each global batch."""
    environment.make_deterministic(1)
    rendezvous = f"file://{folder}/rendezvous{world_size}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_network", lambda spec: in_precision(make_network(spec), dtype))
        session = GlooSession(rank, world_size)
        worker = loop.Worker(spec, Execution(folder, folder / "prepared", None, "golden"), session)
    worker.restore()
    found = []
    for iteration in range(steps):
        worker.step(iteration)
        sums = worker.tally.read(session)
        assert sums.images == BATCH
        found.append(sums.mean_loss)
        worker.tally.set(Sums(), session)
    if rank == 0:
        (folder / f"{world_size}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def in_precision(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network with weights of that type, which it turns its images into."""
    network.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(dtype),))
    return network.to(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", STEPS_AND_RATE, ids=str)
def test_the_number_of_workers_leaves_the_losses_alone(dtype: torch.dtype, tmp_path: Path) -> None:
    checksum = noise_images(tmp_path / "prepared")["checksum"]
    data = DataSpec("noise", 0, checksum, None, 16, 160, 10, tuple("0123456789"))
    steps, rate = STEPS_AND_RATE[dtype]
    protocol = make_protocol(iterations=steps, batch_size=BATCH, learning_rate=rate, milestones=(6,), flip=True)
    spec = RunSpec("golden", 0, NetworkSpec("cifar_attention56", 10, {}), data, protocol)
    for workers in WORKERS:
        mp.spawn(losses, (workers, tmp_path, spec, dtype, steps), nprocs=workers)
    alone, *others = (json.loads((tmp_path / f"{workers}.json").read_text()) for workers in WORKERS)
    assert len(set(alone)) == steps  # every batch is another one
    for found in others:
        assert found == pytest.approx(alone, abs=1e-5)
