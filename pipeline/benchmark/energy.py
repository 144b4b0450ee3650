"""The energy that a GPU has used, where NVIDIA's management library (NVML) is there and tells it."""

from __future__ import annotations

from collections.abc import Callable

import torch


def energy_counter(device: torch.device) -> Callable[[], float] | None:
    """Return a reader of the joules that a GPU has used since its driver was loaded; None where they are not counted.

    GPUs since Volta count, for the complete GPU with its memory: a slice of one (MIG) has no count of its own.
    """
    if device.type != "cuda" or "MIG" in torch.cuda.get_device_name(device):
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        # By its UUID: CUDA_VISIBLE_DEVICES renumbers CUDA's devices, and not NVML's.
        gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except Exception:  # no library, no driver, a GPU that does not count: each says so in its own way
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000  # from millijoules
