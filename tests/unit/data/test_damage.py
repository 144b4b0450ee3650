"""Every file of prepared data and noisy labels with every kind of damage: one clear line, and never another number."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import data
from pipeline.data import prepared_folder
from pipeline.data.arrays import PREPARED, Arrays, load
from pipeline.data.manifest import read_manifest
from pipeline.data.shards import ImageShards, open_image_shards
from pipeline.utils.errors import UserError
from tests.unit.data.image_tree import SmallImageNet, write_tree

DIGITS = [f"prepared/digits/{name}.npy" for name in PREPARED]
NOISY = ["noisy/digits/10/labels.npy", "noisy/digits/10/flipped.npy", "noisy/digits/10/manifest.json"]
IMAGES = [f"prepared/imagenet/{name}" for name in ("train.npy", "val.npy", "unusual.csv", "manifest.json")]
FILES = [*DIGITS, "prepared/digits/manifest.json", *NOISY, *IMAGES, "prepared/imagenet/train-00000.bin"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    data.fetch("digits", root=root)
    data.prepare("digits", root)
    data.corrupt("digits", 10, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "imagenet", SmallImageNet())
        data.fetch("imagenet", str(write_tree(root / "tree")), root)
        data.prepare("imagenet", root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def open_data(root: Path, name: str) -> Arrays | ImageShards:
    """Open what training opens for the file of that name."""
    if "imagenet" in name:
        return open_image_shards(prepared_folder(root, "imagenet"), verify=True)
    return load(prepared_folder(root, "digits"), data.noisy_folder(root, "digits", 10))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped byte": lambda path: flip(path, path.stat().st_size // 2),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "folder": replace_by_folder,
    "loop of links": replace_by_loop,
    "other text": lambda path: path.write_text("[" * 100_000),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_in_one_line_that_says_what_to_do(root: Path, name: str, damage: str) -> None:
    DAMAGE[damage](root / name)
    with pytest.raises(UserError) as caught:
        open_data(root, name)
    stage = "corrupt" if "noisy" in name else "prepare"
    message = str(caught.value)
    assert message.isprintable() and str((root / name).parent) in message
    assert message.endswith((f"run {stage} again", f"run {stage} first"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_permission_is_named_in_one_line(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = io.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path) == str(root / name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(UserError, match=f"{root / name}.*run (prepare|corrupt) again"):
        open_data(root, name)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("manifest.json")])
def test_no_flipped_byte_of_a_manifest_changes_a_number(root: Path, name: str) -> None:
    path, kept = root / name, (root / name).read_bytes()
    before = open_data(root, name)
    for position in range(0, len(kept), 5):
        flip(path, position)
        try:
            after = open_data(root, name)
        except UserError as error:
            assert str(error).isprintable(), position
        else:
            for key in set(vars(before)) - {"classes", "train", "test"}:
                assert np.array_equal(getattr(before, key), getattr(after, key)), (position, key)
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", {"../../outside": "0" * 64}),
        ("files", {"/etc/hostname": "0" * 64}),
        ("files", {"mean.npy": 3}),
        ("files", []),
        ("classes", ["a", "../b"]),
        ("classes", ["a", "two\nlines"]),
        ("classes", ["a", "<script>"]),
        ("classes", ["a", "a"]),
        ("classes", "abc"),
        ("classes", [1, 2]),
        ("classes", []),
        ("image_shape", [16, 16]),
        ("image_shape", [16, 16, True]),
        ("train_images", True),
        ("train_images", -1),
        ("train_images", 10**30),
        ("checksum", "../../x"),
        ("channel_mean", [0.5, 0.5, 2.0]),
    ],
    ids=str,
)
def test_a_manifest_with_names_or_values_that_cannot_be_is_refused(root: Path, key: str, value: Any) -> None:
    from pipeline.utils.files import write_json

    folder = prepared_folder(root, "digits")
    write_json(folder / "manifest.json", {**read_manifest(folder), key: value})
    with pytest.raises(UserError) as caught:
        read_manifest(folder)
    assert str(caught.value).startswith(f"{folder}/manifest.json: ") and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a\nb", ""])
def test_a_record_of_raw_data_with_a_name_that_leaves_its_folder_is_refused(root: Path, name: str) -> None:
    from pipeline.utils.files import read_json, write_json

    path = data.raw_folder(root, "digits") / "source.json"
    record = read_json(path)
    write_json(path, {**record, "files": {name: record["files"]["digits.npy"]}})
    with pytest.raises(UserError, match=r"source\.json.*; fetch digits again"):
        data.prepare("digits", root)
