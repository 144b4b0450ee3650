"""The energy of a GPU: read off the counter of the right one, and missing where nobody counts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from pipeline.benchmark import networks
from pipeline.benchmark.energy import energy_counter
from pipeline.benchmark.networks import Case, Settings, measure

CUDA, UUID = torch.device("cuda", 1), "3b4f1c5e-8ff3-c2dc-3b0d-fafd804516ae"


class Nvml:
    """NVML with one GPU, which has used 2 J more at each look."""

    def __init__(self) -> None:
        self.millijoules, self.initialised = 5000, False

    def nvmlInit(self) -> None:  # noqa: N802
        self.initialised = True

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert self.initialised
        if uuid != f"GPU-{UUID}":
            raise RuntimeError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "handle"
        self.millijoules += 2000
        return self.millijoules


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A CUDA device of that name and UUID, with that NVML; None: it is not installed."""

    def make(name: str = "NVIDIA H100 80GB HBM3", uuid: str = UUID, nvml: object = None) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuid))
        monkeypatch.setitem(sys.modules, "pynvml", nvml)

    return make


def test_the_counter_is_that_of_the_gpu_in_joules(gpu: Callable[..., None]) -> None:
    gpu(nvml=Nvml())
    counter = energy_counter(CUDA)
    assert counter is not None
    assert counter() - counter() == -2.0


class Broken(Nvml):
    def nvmlInit(self) -> None:  # noqa: N802
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")


class Old(Nvml):
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        raise RuntimeError("Not Supported")


@pytest.mark.parametrize(
    "setting",
    [
        {"nvml": None},
        {"nvml": Broken()},
        {"nvml": Old()},
        {"nvml": Nvml(), "uuid": "another"},
        {"nvml": Nvml(), "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb"},  # its counter is that of the whole GPU
    ],
    ids=["no library", "no driver", "no counter", "unknown to NVML", "a slice"],
)
def test_where_nobody_counts_there_is_no_counter(gpu: Callable[..., None], setting: dict[str, object]) -> None:
    gpu(**setting)
    assert energy_counter(CUDA) is None


def test_a_processor_has_no_counter(gpu: Callable[..., None]) -> None:
    gpu(nvml=Nvml())
    assert energy_counter(torch.device("cpu")) is None


def test_the_row_has_the_energy_of_the_repeated_training_steps_for_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def counter() -> float:
        looks.append(10.0 + 90.0 * len(looks))
        return looks[-1]

    monkeypatch.setattr(networks, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(networks, "energy_counter", lambda device: counter)
    evaluation, training = measure(Case("cifar_attention56", 8, Settings("cpu", 1, repeats=3, batch_size=2), ""))
    assert looks == [10.0, 100.0], "once before the repeated steps, and once after them"
    assert training.joules_per_image == 90.0 / (2 * 3)
    assert evaluation.joules_per_image is None
