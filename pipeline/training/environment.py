"""What a run runs on, and the settings of PyTorch that its numbers rest on."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from pipeline.runs.spec import RunSpec

DECODERS = ("pillow", "simplejpeg", "torchvision")


def make_deterministic(threads: int) -> None:
    """Deterministic algorithms everywhere, no TF32, and a fixed number of threads for this process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # As `use_deterministic_algorithms` does, but that imports the compiler, 2 CPU-seconds, to set it, too.
    torch.set_deterministic_debug_mode("error")
    # Else every new tensor is filled with NaN first, a tenth of a step; no kernel here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def compiled(model: nn.Module) -> nn.Module:
    """Return the model compiled by `torch.compile`, which is set to be deterministic, too."""
    torch.use_deterministic_algorithms(True)
    return torch.compile(model)  # type: ignore[return-value]


def autocast(spec: RunSpec, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """The context in which a run's network is evaluated: bfloat16 autocast, or nothing."""
    if spec.precision == "float32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)


def device_name(device: torch.device) -> str:
    """E.g. ``cuda: NVIDIA H100 80GB HBM3`` or ``cpu: Intel(R) Xeon(R) Processor (AMX)``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    model, amx = platform.processor() or platform.machine(), False
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                amx = "amx_bf16" in value.split()
                break
    return f"cpu: {model}{' (AMX)' if amx else ''}"


def versions(spec: RunSpec) -> dict[str, str]:
    """Versions that a run's numbers may depend on; for image shards those of the decoders, too."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    for package in DECODERS if spec.crops else ():
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def hostname() -> str:
    """Name of this machine."""
    return socket.gethostname()


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
