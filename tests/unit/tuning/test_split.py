"""The validation split: held out of the training images, the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import data
from pipeline.data.arrays import Arrays, load
from pipeline.tuning.split import SHARE, held_out, hold_out, split_folder
from pipeline.utils.errors import UserError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits, and their split."""
    root = tmp_path_factory.mktemp("data")
    data.fetch("digits", root=root)
    data.prepare("digits", root=root)
    hold_out("digits", root)
    return root


def as_bytes(images: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images]


def both(root: Path) -> tuple[Arrays, Arrays]:
    return load(data.prepared_folder(root, "digits")), load(split_folder(root, "digits"))


def test_every_training_image_is_in_one_part_and_no_test_image_in_any(digits: Path) -> None:
    whole, split = both(digits)
    assert sorted([*as_bytes(split.train_images), *as_bytes(split.test_images)]) == sorted(as_bytes(whole.train_images))
    assert len(split.test_images) == len(whole.train_images) // SHARE
    seen = {*as_bytes(split.train_images), *as_bytes(split.test_images)}
    assert not seen & set(as_bytes(whole.test_images))


def test_images_keep_their_labels(digits: Path) -> None:
    whole, split = both(digits)
    labels = dict(zip(as_bytes(whole.train_images), whole.train_labels.tolist(), strict=True))
    for images, found in ((split.train_images, split.train_labels), (split.test_images, split.test_labels)):
        assert [labels[image] for image in as_bytes(images)] == found.tolist()


def test_every_class_has_its_share(digits: Path) -> None:
    whole, split = both(digits)
    expected = np.bincount(whole.train_labels) / SHARE
    assert np.abs(np.bincount(split.test_labels) - expected).max() <= 1


def test_the_mean_image_is_that_of_the_remaining_images(digits: Path) -> None:
    _, split = both(digits)
    assert np.allclose(split.mean, split.train_images.mean(axis=0) / 255, atol=1e-6)


def test_the_split_depends_on_pixels_and_labels_alone(digits: Path) -> None:
    whole, _ = both(digits)
    images, labels = np.asarray(whole.train_images), np.asarray(whole.train_labels)
    order = np.random.default_rng(0).permutation(len(labels))
    one, other = held_out(images, labels, 10), held_out(images[order], labels[order], 10)
    assert sorted(as_bytes(images[one])) == sorted(as_bytes(images[order][other]))


def test_it_is_made_once_and_again_when_the_data_change(digits: Path) -> None:
    manifest = split_folder(digits, "digits") / "manifest.json"
    before = manifest.stat().st_mtime_ns
    hold_out("digits", digits)
    assert manifest.stat().st_mtime_ns == before
    damaged = split_folder(digits, "digits") / "test_labels.npy"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    hold_out("digits", digits)
    assert damaged.read_bytes() == content


def test_without_prepared_data_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run prepare first"):
        hold_out("digits", tmp_path)
