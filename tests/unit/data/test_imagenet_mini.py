"""The stand-in for ImageNet: patches of images that installed packages contain."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import data
from pipeline.data import imagenet_mini
from pipeline.data.imagenet_mini import IMAGES, cut_patches
from pipeline.data.shards import open_image_shards
from pipeline.utils.errors import UserError

MINI = "imagenet-mini"


def replaced(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Put another image, with these fields, in the first one's place."""
    changed = IMAGES["astronaut"]._replace(**changes)
    monkeypatch.setattr(imagenet_mini, "IMAGES", {**IMAGES, "astronaut": changed})


def test_it_is_there_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    data.fetch(MINI, "official", tmp_path)
    manifest = data.prepare(MINI, tmp_path)
    assert (manifest["train_images"], manifest["test_images"]) == (864, 144)
    images = open_image_shards(data.prepared_folder(tmp_path, MINI))
    assert images.train.encoded(0)[:2] == b"\xff\xd8" and images.train.size(0) == (80, 80)


def test_each_image_is_a_class_and_all_classes_have_equally_many_patches(tmp_path: Path) -> None:
    data.fetch(MINI, "official", tmp_path)
    data.prepare(MINI, tmp_path)
    images = open_image_shards(data.prepared_folder(tmp_path, MINI))
    assert images.classes == tuple(sorted(IMAGES))
    assert Counter(images.train.labels.tolist()) == dict.fromkeys(range(9), 96)
    assert Counter(images.test.labels.tolist()) == dict.fromkeys(range(9), 16)


@pytest.mark.parametrize("name", IMAGES)
def test_no_pixel_of_a_validation_patch_is_in_a_training_patch(name: str) -> None:
    shape = IMAGES[name].height, IMAGES[name].width
    numbers: NDArray[Any] = np.arange(np.prod(shape)).reshape(shape)  # each pixel is its own number
    patches = {split: [patch for _, patch in cut_patches({name: numbers}, split)] for split in ("train", "val")}
    assert {patch.shape for both in patches.values() for patch in both} == {(80, 80)}
    assert len({int(patch[0, 0]) for both in patches.values() for patch in both}) == 96 + 16
    assert not np.intersect1d(patches["train"], patches["val"]).size


def test_another_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source '/tmp' of imagenet-mini: allowed is 'official'"):
        data.fetch(MINI, "/tmp", tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"package": "scikit-nothing"}, "scikit-nothing is missing: the package is not installed; install"),
        ({"file": "skimage/data/nobody.png"}, "skimage/data/nobody.png of scikit-image is missing; install"),
        ({"file": "skimage/data/README.txt"}, "skimage/data/README.txt of scikit-image cannot be read; install"),
        ({"file": "skimage/data/camera.png"}, "its shape is (512, 512), expected (512, 512, 3); install"),
        ({"height": 600}, "astronaut.png of scikit-image is not the known one: its shape is (512, 512, 3), expected"),
    ],
)
def test_an_image_that_is_missing_or_another_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], problem: str
) -> None:
    replaced(monkeypatch, **changes)
    with pytest.raises(UserError, match=re.escape(problem)) as e:
        data.fetch(MINI, "official", tmp_path)
    assert "\n" not in str(e.value)
    assert not list(data.raw_folder(tmp_path, MINI).glob("*/*"))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"astronaut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:100_000])
    replaced(monkeypatch, file=str(path))  # an absolute path stays what it is
    with pytest.raises(UserError, match=rf"astronaut\{suffix} of scikit-image cannot be read"):
        data.fetch(MINI, "official", tmp_path)
