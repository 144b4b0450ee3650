"""The kind of hardware that a measurement belongs to."""

from __future__ import annotations

import re

import torch

from pipeline.training.environment import device_name
from pipeline.utils.cores import available_cores


def hardware_name(device: torch.device) -> str:
    """E.g. ``cuda: NVIDIA H100 80GB HBM3`` or ``cpu: Intel(R) Xeon(R) Processor (AMX), 2 cores``.

    The cores are those that this process may use.
    """
    if device.type != "cpu":
        return device_name(device)
    count = available_cores()
    return f"{device_name(device)}, {count} core{'' if count == 1 else 's'}"


def hardware_slug(name: str) -> str:
    """A hardware's name as the name of a file: ``cpu-intel-xeon-processor-amx-2-cores``."""
    plain = re.sub(r"\((?:r|tm|c)\)", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
