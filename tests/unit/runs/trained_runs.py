"""Folders of finished runs with real weights, for the tests of what is done with trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models import create_model
from models.weights import save_weights
from pipeline.runs.spec import DataSpec, NetworkSpec, Protocol, RunSpec
from tests.unit.tracking import run_folders

NAME, CLASSES, SIZE = "cifar_attention56", ("cat", "dog", "frog", "ship"), 16
OPTIONS: dict[str, Any] = {"mask": "local", "t": 1}
NORMALISATION = {"image_size": SIZE, "crop_pct": 1.0, "mean": [[[0.5, 0.4, 0.3]] * SIZE] * SIZE, "std": [1.0] * 3}


def run_spec(dataset: str = "cifar10", noise: int = 0) -> RunSpec:
    return RunSpec(
        experiment="attention56-local",
        seed=0,
        network=NetworkSpec(NAME, len(CLASSES), OPTIONS),
        data=DataSpec(dataset, noise, "0" * 64, "1" * 64 if noise else None, SIZE, 1000, 360, CLASSES),
        protocol=Protocol(100, 64, 0.1, (50,), 0.1, 0.9, True, 1e-4, 2, True, 64),
    )


def write_weights(folder: Path, *, old: bool = False) -> Path:
    """Write the weights of a network, without class names and normalisation if they are `old`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "weights.safetensors"
    model = create_model(NAME, len(CLASSES), **OPTIONS)
    use: dict[str, Any] = {} if old else {"classes": CLASSES, "normalisation": NORMALISATION}
    save_weights(model, path, name=NAME, num_classes=len(CLASSES), options=OPTIONS, **use)
    return path


def write_run(folder: Path, spec: RunSpec | None = None, *, old: bool = False) -> Path:
    """Write the files of a finished run that the use of its network needs; returns its weights."""
    path = write_weights(folder, old=old)
    weights, spec = path.read_bytes(), spec or run_spec()
    run_folders.write_run(folder.parent, spec, profile="cifar10", error=6.8125, weights=weights, name=folder.name)
    return path
