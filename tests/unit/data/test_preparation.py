"""Prepared arrays: right, whole, and made again only when needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline import data
from pipeline.data.arrays import PREPARED, load, read_manifest
from pipeline.data.preparation import canonical_order, statistics
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample


@pytest.fixture
def root(sample: Sample, tmp_path: Path) -> Path:
    """A data folder with the small CIFAR-10 prepared."""
    data.fetch("cifar10", str(sample.write_parquet(tmp_path / "hub")), tmp_path)
    data.prepare("cifar10", tmp_path)
    return tmp_path


def state(folder: Path) -> dict[str, Any]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


def forbid(*_: Any) -> None:
    raise AssertionError("decoded again")


def test_the_manifest_says_what_is_there(sample: Sample, root: Path) -> None:
    manifest = read_manifest(data.prepared_folder(root, "cifar10"))
    assert list(manifest["files"]) == [f"{name}.npy" for name in PREPARED]
    scaled = sample.train.images / 255
    np.testing.assert_allclose(manifest["channel_mean"], scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(manifest["channel_std"], scaled.std(axis=(0, 1, 2)), rtol=1e-12)
    assert (manifest["dataset"], manifest["image_shape"]) == ("cifar10", [32, 32, 3])
    assert (manifest["train_images"], manifest["test_images"]) == (60, 20)
    assert manifest["classes"] == list(sample.dataset.classes)


def test_the_mean_image_is_that_of_the_training_images(sample: Sample, root: Path) -> None:
    mean = load(data.prepared_folder(root, "cifar10")).mean
    assert mean.dtype == np.float32 and mean.shape == (32, 32, 3)
    np.testing.assert_array_equal(mean, (sample.train.images.sum(axis=0) / (60 * 255)).astype(np.float32))


def test_statistics_do_not_depend_on_the_order_of_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9000, 4, 5, 3), np.uint8)
    mean, means, deviations = statistics(images)
    other_mean, *others = statistics(np.ascontiguousarray(images[::-1]))
    assert mean.tobytes() == other_mean.tobytes() and [means, deviations] == others
    np.testing.assert_allclose(deviations, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_equal_images_are_ordered_by_label(sample: Sample) -> None:
    images = np.repeat(sample.train.images[:1], 10, axis=0)
    from pipeline.data.dataset import Split

    split = canonical_order(Split(images, np.arange(10)[::-1].copy()))
    assert split.labels.tolist() == list(range(10))


def test_preparing_again_changes_nothing(root: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data.prepared_folder(root, "cifar10")
    before = state(folder)
    monkeypatch.setattr(type(sample.dataset), "decode", forbid)
    assert data.prepare("cifar10", root) == read_manifest(folder)
    assert state(folder) == before


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in PREPARED), "manifest.json"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "changed"])
def test_damaged_arrays_are_made_again(root: Path, name: str, damage: str) -> None:
    path = data.prepared_folder(root, "cifar10") / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(whole[:-3] if damage == "truncated" else whole[:-10] + b"0123456789")
    data.prepare("cifar10", root)
    assert path.read_bytes() == whole


def test_other_raw_data_are_prepared_anew(root: Path, sample: Sample) -> None:
    before = read_manifest(data.prepared_folder(root, "cifar10"))
    sample.train.images[5, 0, 0, 0] ^= 1
    data.fetch("cifar10", str(sample.write_tree(root / "tree")), root)
    assert data.prepare("cifar10", root)["checksum"] != before["checksum"]


def test_a_moved_source_is_not_other_data(root: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "hub").rename(root / "elsewhere")
    data.fetch("cifar10", str(root / "elsewhere"), root)
    monkeypatch.setattr(type(sample.dataset), "decode", forbid)
    data.prepare("cifar10", root)


def test_an_interrupted_preparation_leaves_what_was_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data.prepared_folder(root, "cifar10")
    (folder / "mean.npy").unlink()
    before = state(folder)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.data.arrays.write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.prepare("cifar10", root)
    assert state(folder) == before and list(folder.parent.iterdir()) == [folder]


def test_preparing_what_was_not_fetched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw/cifar10/source\.json: no such file; fetch cifar10 first"):
        data.prepare("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dataset": "digits"}, "records 'digits', not 'cifar10'"),
        ({"kind": "jpeg"}, "unknown kind 'jpeg'"),
        ({"files": {"a": 1}}, "not a record that fetch wrote"),
        ({"files": {}}, "records no files"),
        ({"files": None}, "not a record that fetch wrote"),
    ],
)
def test_a_wrong_record_of_the_source_is_refused(root: Path, change: dict[str, Any], problem: str) -> None:
    path = data.raw_folder(root, "cifar10") / "source.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=problem):
        data.prepare("cifar10", root)
