"""The real CIFAR-10, from local Parquet shards, prepared as a user would prepare it.

The folder is that of the environment variable RAN_CIFAR10, or ../shared/data/cifar10 beside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import data
from pipeline.data.arrays import load, read_manifest
from pipeline.runs.execution import Execution
from pipeline.runs.records import Sums
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from pipeline.training import environment
from pipeline.training.loop import Worker
from pipeline.training.session import LocalSession
from tests.plans import make_protocol

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("RAN_CIFAR10", ROOT.parent / "shared" / "data" / "cifar10"))

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no CIFAR-10 at {FOLDER} (set RAN_CIFAR10 to a folder of shards)"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the prepared CIFAR-10."""
    folder = tmp_path_factory.mktemp("data")
    data.fetch("cifar10", str(FOLDER), folder)
    data.prepare("cifar10", folder)
    return folder


def test_cifar10_has_its_published_statistics(root: Path) -> None:
    prepared = data.prepared_folder(root, "cifar10")
    manifest = read_manifest(prepared)
    assert [f"{value:.8f}" for value in manifest["channel_mean"]] == ["0.49139968", "0.48215841", "0.44653091"]
    assert [f"{value:.8f}" for value in manifest["channel_std"]] == ["0.24703223", "0.24348513", "0.26158784"]
    assert manifest["checksum"] == "7539a57b0032eef22293fd3771d3c27aecd7a5bdd7365913ed957b6a8c21d4b0"

    noise = data.corrupt("cifar10", 30, root)
    arrays = load(prepared, data.noisy_folder(root, "cifar10", 30))
    assert arrays.train_images.shape == (50_000, 32, 32, 3) and arrays.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(load(prepared).train_labels).tolist() == [5_000] * 10
    assert np.bincount(arrays.test_labels).tolist() == [1_000] * 10
    # 15,000 flips are expected, with a standard deviation of 102.
    assert abs(noise["flipped"] - 15_000) < 400
    assert noise["checksum"] == "588dc8355e08cc33f2e9abc4f06040e3ea9958b328146a62e6fe2e93bb3f04ea"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_loss_of_attention56_falls(root: Path, tmp_path: Path) -> None:
    """Three hundred iterations at the start of the paper's protocol."""
    prepared = data.prepared_folder(root, "cifar10")
    manifest = read_manifest(prepared)
    classes = tuple(manifest["classes"])
    spec = RunSpec(
        experiment="attention56",
        seed=0,
        network=NetworkSpec("cifar_attention56", 10),
        data=DataSpec("cifar10", 0, manifest["checksum"], None, 32, 50_000, 10_000, classes),
        protocol=make_protocol(iterations=160_000, batch_size=64, milestones=(64_000, 96_000), padding=4, flip=True),
        precision="bfloat16",
    )
    environment.make_deterministic(threads=2)
    session = LocalSession()
    worker = Worker(spec, Execution(tmp_path, prepared, None, "cifar10", threads=2), session)
    losses = []
    for iteration in range(300):
        worker.step(iteration)
        if (iteration + 1) % 100 == 0:
            losses.append(worker.tally.read(session).mean_loss)
            worker.tally.set(Sums(), session)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.85 * losses[0]
