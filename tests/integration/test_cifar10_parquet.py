"""The real CIFAR-10, from local Parquet shards, prepared as a user would prepare it.

The folder is that of the environment variable RAN_CIFAR10, or ../shared/data/cifar10 beside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import data
from pipeline.data.arrays import load

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("RAN_CIFAR10", ROOT.parent / "shared" / "data" / "cifar10"))

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no CIFAR-10 at {FOLDER} (set RAN_CIFAR10 to a folder of shards)"
)


def test_cifar10_has_its_published_statistics(tmp_path: Path) -> None:
    data.fetch("cifar10", str(FOLDER), tmp_path)
    manifest = data.prepare("cifar10", tmp_path)
    assert [f"{value:.8f}" for value in manifest["channel_mean"]] == ["0.49139968", "0.48215841", "0.44653091"]
    assert [f"{value:.8f}" for value in manifest["channel_std"]] == ["0.24703223", "0.24348513", "0.26158784"]
    assert manifest["checksum"] == "7539a57b0032eef22293fd3771d3c27aecd7a5bdd7365913ed957b6a8c21d4b0"

    noise = data.corrupt("cifar10", 30, tmp_path)
    prepared = data.prepared_folder(tmp_path, "cifar10")
    arrays = load(prepared, data.noisy_folder(tmp_path, "cifar10", 30))
    assert arrays.train_images.shape == (50_000, 32, 32, 3) and arrays.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(load(prepared).train_labels).tolist() == [5_000] * 10
    assert np.bincount(arrays.test_labels).tolist() == [1_000] * 10
    # 15,000 flips are expected, with a standard deviation of 102.
    assert abs(noise["flipped"] - 15_000) < 400
    assert noise["checksum"] == "588dc8355e08cc33f2e9abc4f06040e3ea9958b328146a62e6fe2e93bb3f04ea"
