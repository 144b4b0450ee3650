"""How the workers of a run meet: not at all if there is one, on loopback if all are on one machine."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend


def torch_config(workers: int, backend: str) -> TorchConfig:
    """Return the process group for so many workers; needs a connection to Ray."""
    if workers == 1:
        return NoGroup(backend=backend)
    one_node = sum(node["Alive"] for node in ray.nodes()) == 1
    return LoopbackGroup(backend=backend) if one_node else TorchConfig(backend=backend)


class NoGroup(TorchConfig):
    """One worker: torch.distributed would only open a port on all interfaces."""

    @property
    def backend_cls(self) -> Any:
        """The backend, which does nothing."""
        return Backend


class LoopbackGroup(TorchConfig):
    """Several workers on one machine."""

    @property
    def backend_cls(self) -> Any:
        """The backend, whose workers find one another through a file: a TCPStore listens on all interfaces."""
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        folder = worker_group.execute_single(0, _session_folder)
        store = f"file://{folder}/process-group-{secrets.token_hex(8)}"
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(rank, _join, backend_config, store, rank, len(worker_group))
                for rank in range(len(worker_group))
            ]
        )


def _session_folder() -> str:
    """Return the folder of Ray's session, which is private to the user and lies on this machine."""
    return str(Path(ray._private.worker._global_node.get_session_dir_path()))


def _join(config: TorchConfig, store: str, rank: int, size: int) -> None:
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    dist.init_process_group(
        config.backend, init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=config.timeout_s)
    )
