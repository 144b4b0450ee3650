"""The embedded data set: the same arrays on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from sklearn.datasets import load_digits

from pipeline import data
from pipeline.data.arrays import Arrays, load, read_manifest
from pipeline.data.digits import enlarge, stratified_counts
from pipeline.utils.errors import UserError

# Raise `NUMERICS` of the training core when this changes: every result on the digits changes with it.
CHECKSUM = "6ceb85d66e77ff3d8bd3e3e4905c27282e8d8a43ecfd40b5bb0b1b8e9489428f"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    data.fetch("digits", root=root)
    data.prepare("digits", root)
    return root


@pytest.fixture(scope="module")
def digits(root: Path) -> Arrays:
    return load(data.prepared_folder(root, "digits"))


def test_the_arrays_are_the_known_ones(root: Path) -> None:
    assert read_manifest(data.prepared_folder(root, "digits"))["checksum"] == CHECKSUM


def test_every_image_is_in_one_of_the_splits(digits: Arrays) -> None:
    bunch = load_digits()
    expected = sorted(
        (image.tobytes(), label) for image, label in zip(enlarge(bunch.images), bunch.target, strict=True)
    )
    splits = ((digits.train_images, digits.train_labels), (digits.test_images, digits.test_labels))
    found = [(i.tobytes(), k) for images, labels in splits for i, k in zip(images, labels, strict=True)]
    assert sorted(found) == expected
    assert len(set(found)) == 1797


def test_the_split_is_stratified(digits: Arrays) -> None:
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    assert train.sum() == 1437 and test.sum() == 360
    assert np.abs(test - (train + test) * 360 / 1797).max() < 1


@pytest.mark.parametrize(
    ("sizes", "total", "shares"), [([10, 10], 4, [2, 2]), ([5, 3, 2], 5, [3, 1, 1]), ([1, 1, 1], 2, [1, 1, 0])]
)
def test_shares_go_by_largest_remainder(sizes: list[int], total: int, shares: list[int]) -> None:
    assert stratified_counts(sizes, total) == shares


def test_enlarging_is_bilinear_interpolation() -> None:
    small = np.random.default_rng(0).integers(0, 17, (20, 8, 8)).astype(np.uint8)
    centres = (np.arange(16) + 0.5) / 2 - 0.5  # of the new pixels, in old ones; beyond the edges they repeat
    exact = small.astype(np.float64)
    for axis in (1, 2):
        exact = np.apply_along_axis(lambda line: np.interp(centres, np.arange(8), line), axis, exact)
    large = enlarge(small)
    assert large.shape == (20, 16, 16, 3) and large.dtype == np.uint8
    for channel in range(3):
        assert np.abs(large[..., channel] - exact * 255 / 16).max() <= 0.5


def test_white_stays_white_and_black_black() -> None:
    assert (enlarge(np.full((1, 8, 8), 16, np.uint8)) == 255).all()
    assert (enlarge(np.zeros((1, 8, 8), np.uint8)) == 0).all()


def test_there_is_one_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source '/tmp' of digits: allowed is 'official'"):
        data.fetch("digits", "/tmp", tmp_path)


def test_other_digits_of_another_scikit_learn_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = load_digits()
    changed.data[0, 0] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: changed)
    with pytest.raises(UserError, match="not the 1,797 known images"):
        data.fetch("digits", root=tmp_path)


def test_a_damaged_raw_file_is_refused(tmp_path: Path) -> None:
    data.fetch("digits", root=tmp_path)
    path = data.raw_folder(tmp_path, "digits") / "digits.npy"
    for content in (path.read_bytes()[:-1], b"\0" * path.stat().st_size):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"digits\.npy: its (size|content) has changed"):
            data.prepare("digits", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="has gone since digits was fetched"):
        data.prepare("digits", tmp_path)
    data.fetch("digits", root=tmp_path)
    assert data.prepare("digits", tmp_path)["checksum"] == CHECKSUM
