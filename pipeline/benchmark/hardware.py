"""The kind of hardware that a measurement belongs to."""

from __future__ import annotations

import os
import re

import torch

from pipeline.training.environment import device_name


def hardware_name(device: torch.device) -> str:
    """E.g. ``cuda: NVIDIA H100 80GB HBM3`` or ``cpu: Intel(R) Xeon(R) Processor (AMX), 2 cores``.

    The cores are those that this process may use.
    """
    if device.type != "cpu":
        return device_name(device)
    count = available_cores()
    return f"{device_name(device)}, {count} core{'' if count == 1 else 's'}"


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware_slug(name: str) -> str:
    """A hardware's name as the name of a file: ``cpu-intel-xeon-processor-amx-2-cores``."""
    plain = re.sub(r"\((?:r|tm|c)\)", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
