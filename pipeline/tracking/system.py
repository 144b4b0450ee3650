"""What the machines do while a run trains: sampled by its workers into the run folder, without MLflow."""

from __future__ import annotations

import contextlib
import csv
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.runs.records import SYSTEM

TIME = "milliseconds"
SHORTEST, LONGEST = 5.0, 30.0  # seconds between samples
SAMPLES = 20  # a short run has at least about so many


class SystemLog:
    """Samples one machine in a background thread into ``system-<node>.csv``; a context manager.

    For the first worker on each machine of a run. A sample costs about a millisecond; the time between samples grows
    with the run from 5 s to 30 s. Metric names are MLflow's own (`mlflow.system_metrics`), so that its UI shows them
    as system metrics. GPUs are there if `nvidia-ml-py` is installed.
    """

    def __init__(self, folder: Path, node: str) -> None:
        self._path = folder / f"system-{re.sub(r'[^A-Za-z0-9_.-]', '-', node)}.csv"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-log", daemon=True)

    def __enter__(self) -> SystemLog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        sample = sampler()
        begun = time.monotonic()
        stopped = False
        while not stopped:
            elapsed = time.monotonic() - begun
            stopped = self._stop.wait(min(LONGEST, max(SHORTEST, elapsed / SAMPLES)))
            try:
                self._append(sample())
            except OSError:  # a full disk is reported by the run itself
                return

    def _append(self, values: Mapping[str, float]) -> None:
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow([TIME, *values])
            writer.writerow([int(1000 * time.time()), *values.values()])


def sampler() -> Callable[[], dict[str, float]]:
    """A function that measures this machine; shares of time are means since the call before."""
    import psutil

    psutil.cpu_percent()
    gpus = _gpus()

    def sample() -> dict[str, float]:
        memory = psutil.virtual_memory()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": round(memory.used / 1e6, 1),
            "system_memory_usage_percentage": round(100 * memory.used / memory.total, 1),
        } | gpus()

    return sample


def _gpus() -> Callable[[], dict[str, float]]:
    try:
        import pynvml

        pynvml.nvmlInit()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no library, no driver or no GPU: the errors have no common class
        return dict
    measures: dict[str, Callable[[Any], float]] = {
        "utilization_percentage": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
        "memory_usage_megabytes": lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used / 1e6,
        "power_usage_watts": lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    }

    def sample() -> dict[str, float]:
        values = {}
        for index, gpu in enumerate(gpus):
            for name, measure in measures.items():
                with contextlib.suppress(pynvml.NVMLError):  # not every GPU, nor every slice of one, has them all
                    values[f"gpu_{index}_{name}"] = round(float(measure(gpu)), 1)
        return values

    return sample


def read_system(folder: Path) -> list[tuple[int, int, dict[str, float]]]:
    """All samples of a run: number on its machine, milliseconds since 1970, metrics by MLflow's names.

    A line that a killed worker left unfinished is passed over.
    """
    found = []
    for path in sorted(folder.glob(SYSTEM)):
        node = path.stem.removeprefix("system-")
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                try:
                    values = {f"system/{node}/{key}": float(value) for key, value in row.items() if key != TIME}
                    found.append((number, int(row[TIME]), values))
                except (KeyError, TypeError, ValueError):
                    continue
    return found
