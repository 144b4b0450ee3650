"""A profile of one experiment on a few digits, prepared in a folder of its own, and trials that only pretend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.data.arrays import write_arrays
from pipeline.data.preparation import statistics
from pipeline.runs.records import DETERMINISTIC, HISTORY, Evaluation, Provenance, write_rows
from pipeline.settings import config, reading
from pipeline.tuning.search import Job, Search, prepare
from pipeline.tuning.space import Space
from pipeline.utils.files import write_json

CLASSES, SIZE, TRAIN, TEST = 10, 8, 240, 40

SPACE: dict[str, Any] = {
    "trials": 6,
    "stopping": {"grace": 0.3, "reduction_factor": 3},
    "parameters": {
        "protocol.learning_rate": {"low": 0.001, "high": 1.0, "log": True},
        "protocol.milestones.1": {"low": 0.3, "high": 0.6},
        "protocol.milestones.2": {"low": 0.6, "high": 0.9},
        "options.t": {"low": 1, "high": 3},
        "options.activation": {"choices": ["mixed", "channel", "spatial"]},
    },
}

PARAMS: dict[str, Any] = {
    "experiments": {
        "attention56": {"network": "cifar_attention56"},
        "resnet164": {"network": "cifar_preresnet164"},
        "attention56-noise30": {"network": "cifar_attention56", "noise": 30},
    },
    "protocol": {
        "iterations": 100,
        "batch_size": 16,
        "learning_rate": 0.1,
        "milestones": [40, 60],
        "gamma": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1.0e-4,
        "padding": 2,
        "flip": False,
        "batch_norm_group": 16,
    },
    "profile": "few",
    "label": {"standin": True, "schedule": "short", "statement": "Made up for a test."},
    "data": {"name": "digits", "source": "official", "noise_levels": [30]},
    "seeds": [0],
    "precision": "float32",
    "channels_last": True,
    "compile": False,
    "resources": {"workers": 1, "threads": 1, "gpus": "auto", "max_parallel": None, "max_failures": 2},
    "checkpoints": {"seconds": 60, "keep": 2},
    "store": "runs",
    "tracking": {"enabled": False, "models": "none", "system_metrics": False},
    "report": {"equivalence_margin": 0.25},
}


def space(**changes: Any) -> Space:
    return reading.check(Space, {**SPACE, **changes}, "a space")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder with params.yaml and prepared data."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (TRAIN + TEST, SIZE, SIZE, 3), np.uint8)
    labels = random.integers(0, CLASSES, TRAIN + TEST)
    mean, channel_mean, channel_std = statistics(images[:TRAIN])
    about = {
        "dataset": "digits",
        "classes": [str(label) for label in range(CLASSES)],
        "image_shape": [SIZE, SIZE, 3],
        "train_images": TRAIN,
        "test_images": TEST,
        "channel_mean": channel_mean,
        "channel_std": channel_std,
    }
    arrays = {
        "train_images": images[:TRAIN],
        "train_labels": labels[:TRAIN],
        "test_images": images[TRAIN:],
        "test_labels": labels[TRAIN:],
        "mean": mean,
    }
    write_arrays(tmp_path / "data" / "prepared" / "digits", arrays, about)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    return tmp_path


def search(root: Path, wanted: int | None = None, **changes: Any) -> Search:
    """The search of `SPACE` in a project folder, ready to begin."""
    tree = reading.read_yaml(root / "params.yaml")
    made = prepare(config.load(root / "params.yaml"), tree, ("small", space(**changes)), "attention56", wanted, root)
    made.config.write(made.folder)
    return made


def pretend(job: Job, *errors: float, finished: bool = True) -> None:
    """Leave in a trial's folder what a run with these validation errors would have left."""
    folder = job.execution.folder
    rows = [
        Evaluation(float(number), 20 * number, 0.1, 1.0, error, 1.0, error) for number, error in enumerate(errors, 1)
    ]
    write_rows(folder / HISTORY, Evaluation, rows)
    if finished:
        for name in set(DETERMINISTIC) - {"config.json", "history.csv"}:
            (folder / name).write_text("{}")
        write_json(folder / "config.json", job.spec.to_json())
    Provenance("finished" if finished else "paused", "few").write(folder)
