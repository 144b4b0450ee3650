"""A small run on the real digits, that trains in a second or two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import data
from pipeline.data.arrays import read_manifest
from pipeline.runs.execution import Execution
from pipeline.runs.spec import DataSpec, NetworkSpec, Protocol, RunSpec


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the prepared digits."""
    root = tmp_path_factory.mktemp("data")
    data.fetch("digits", "official", root)
    data.prepare("digits", root)
    return root


@pytest.fixture(scope="session")
def spec(digits: Path) -> RunSpec:
    """Six steps of Attention-56 with a batch of 16."""
    manifest = read_manifest(data.prepared_folder(digits, "digits"))
    return RunSpec(
        experiment="attention56",
        seed=0,
        network=NetworkSpec("cifar_attention56", 10),
        data=DataSpec(
            dataset="digits",
            noise=0,
            checksum=manifest["checksum"],
            noise_checksum=None,
            image_size=16,
            train_images=manifest["train_images"],
            test_images=manifest["test_images"],
            classes=tuple(manifest["classes"]),
        ),
        protocol=Protocol(
            iterations=6,
            batch_size=16,
            learning_rate=0.05,
            milestones=(3,),
            gamma=0.1,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            padding=2,
            flip=False,
            batch_norm_group=16,
        ),
    )


@pytest.fixture
def execution(digits: Path, tmp_path: Path) -> Callable[..., Execution]:
    """An execution in a fresh folder."""

    def make(name: str = "run", **changes: Any) -> Execution:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return replace(
            Execution(folder, data.prepared_folder(digits, "digits"), noisy=None, profile="digits"), **changes
        )

    return make
