"""What training loads is verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import data
from pipeline.data.arrays import Arrays, load, read_manifest, write_arrays
from pipeline.utils.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    data.fetch("digits", root=root)
    data.prepare("digits", root)
    data.corrupt("digits", 10, root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def load_all(root: Path) -> Arrays:
    return load(data.prepared_folder(root, "digits"), data.noisy_folder(root, "digits", 10))


def rewrite(folder: Path, name: str, array: np.ndarray) -> None:
    """Another array under correct checksums."""
    manifest = read_manifest(folder)
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")} | {name: array}
    write_arrays(folder, arrays, manifest)


def test_shapes_and_types_are_as_promised(root: Path) -> None:
    arrays = load_all(root)
    assert (arrays.train_images.shape, arrays.train_images.dtype) == ((1437, 16, 16, 3), np.uint8)
    assert (arrays.train_labels.shape, arrays.train_labels.dtype) == ((1437,), np.int64)
    assert (arrays.test_images.shape, arrays.test_images.dtype) == ((360, 16, 16, 3), np.uint8)
    assert (arrays.test_labels.shape, arrays.test_labels.dtype) == ((360,), np.int64)
    assert (arrays.mean.shape, arrays.mean.dtype) == ((16, 16, 3), np.float32)
    assert arrays.classes == tuple("0123456789")


def test_arrays_are_read_only_maps_of_the_files(root: Path) -> None:
    arrays = load_all(root)
    for array in (arrays.train_images, arrays.train_labels, arrays.mean):
        assert isinstance(array, np.memmap) and not array.flags.writeable


@pytest.mark.parametrize("name", ["prepared/digits/test_labels.npy", "noisy/digits/10/labels.npy"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "changed"])
def test_a_damaged_file_is_named(root: Path, name: str, damage: str) -> None:
    path = root / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + b"\1")
    stage = "prepare" if "prepared" in name else "corrupt"
    with pytest.raises(UserError, match=f"{name}: missing, or without the checksum in the manifest; run {stage} again"):
        load_all(root)


@pytest.mark.parametrize(
    ("name", "array", "problem"),
    [
        ("test_images", np.zeros((360, 16, 16, 3), np.float32), "float32 .*, expected uint8"),
        ("test_images", np.zeros((359, 16, 16, 3), np.uint8), r"\[359, 16, 16, 3\], expected uint8 \[360, 16, 16, 3\]"),
        ("train_labels", np.zeros(1437, np.int32), r"int32 \[1437\], expected int64"),
        ("train_labels", np.full(1437, 10), "labels beyond the 10 classes 0 to 9"),
        ("test_labels", np.full(360, -1), "labels beyond the 10 classes 0 to 9"),
        ("mean", np.zeros((16, 16), np.float32), r"expected float32 \[16, 16, 3\]"),
    ],
)
def test_arrays_that_contradict_the_manifest_are_refused(
    root: Path, name: str, array: np.ndarray, problem: str
) -> None:
    rewrite(data.prepared_folder(root, "digits"), name, array)
    with pytest.raises(UserError, match=f"{name}.npy: .*{problem}"):
        load(data.prepared_folder(root, "digits"))


def test_noisy_labels_of_other_data_are_refused(root: Path) -> None:
    prepared = data.prepared_folder(root, "digits")
    rewrite(prepared, "mean", np.ones((16, 16, 3), np.float32))
    with pytest.raises(UserError, match="these noisy labels were made for other prepared data; run corrupt again"):
        load_all(root)
    data.corrupt("digits", 10, root)
    load_all(root)


def test_an_array_of_pickled_objects_is_refused(root: Path) -> None:
    folder = data.prepared_folder(root, "digits")
    path = folder / "mean.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    manifest = read_manifest(folder)
    arrays = {name: np.load(folder / name) for name in manifest["files"] if name != "mean.npy"}
    content = path.read_bytes()
    write_arrays(folder, {Path(name).stem: array for name, array in arrays.items()} | {"mean": np.zeros(1)}, manifest)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"mean\.npy"):
        load(folder)


@pytest.mark.parametrize("stage", ["prepare", "corrupt"])
@pytest.mark.parametrize("there", ["link", "file"])
def test_nothing_of_the_users_is_replaced(root: Path, tmp_path: Path, stage: str, there: str) -> None:
    folder = data.prepared_folder(root, "digits") if stage == "prepare" else data.noisy_folder(root, "digits", 10)
    mine = (tmp_path if there == "link" else folder) / "precious.txt"
    if there == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path)
    elif stage == "prepare":
        (folder / "mean.npy").unlink()  # so that it is written again
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"{folder}: .*not replaced"):
        data.prepare("digits", root) if stage == "prepare" else data.corrupt("digits", 10, root)
    assert mine.read_text() == "mine"


def test_arrays_that_are_links_into_the_cache_of_dvc_are_used_and_replaced(root: Path, tmp_path: Path) -> None:
    folder, cache = data.noisy_folder(root, "digits", 10), tmp_path / "cache"
    cache.mkdir()
    for path in list(folder.iterdir()):
        path.rename(cache / path.name).chmod(0o444)
        path.symlink_to(cache / path.name)
    load_all(root)
    data.corrupt("digits", 10, root)
    assert not any(path.is_symlink() for path in folder.iterdir()) and len(list(cache.iterdir())) == 3
    load_all(root)


@pytest.mark.parametrize("key", ["image_shape", "train_images", "classes", "files", "checksum"])
@pytest.mark.parametrize("value", [None, "gone"])
def test_a_manifest_without_its_keys_is_refused(root: Path, key: str, value: Any) -> None:
    folder = data.prepared_folder(root, "digits")
    manifest = read_manifest(folder)
    manifest[key] = value
    if value == "gone":
        del manifest[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="digits"):
        load(folder)


def test_missing_noise_is_said_plainly(root: Path) -> None:
    with pytest.raises(UserError, match=r"noisy/digits/30: no manifest\.json there; run corrupt first"):
        load(data.prepared_folder(root, "digits"), data.noisy_folder(root, "digits", 30))
