"""Class-folder trees: only lossless images, and every class."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from pipeline import data
from pipeline.data.arrays import load
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample


@pytest.fixture
def tree(sample: Sample, tmp_path: Path) -> Path:
    return sample.write_tree(tmp_path / "tree")


def fetch(tree: Path) -> None:
    data.fetch("cifar10", str(tree), tree.parent / "data")


def some_image(tree: Path) -> Path:
    return min((tree / "train" / "cat").iterdir())


def test_a_jpeg_tree_is_refused_with_a_file_and_the_reason(sample: Sample, tmp_path: Path) -> None:
    tree = sample.write_tree(tmp_path / "tree", "JPEG")
    with pytest.raises(UserError, match=r"train/airplane/\d+\.jpeg: JPEG is lossy, .* allowed are PNG, BMP"):
        fetch(tree)


def test_a_lossy_image_under_a_lossless_name_is_refused(sample: Sample, tree: Path) -> None:
    path = some_image(tree)
    path.write_bytes(sample.encode(sample.train.images[0], "JPEG"))
    with pytest.raises(UserError, match=f"{path}: JPEG is lossy"):
        fetch(tree)
    path.write_bytes(sample.encode(sample.train.images[0], "WEBP", lossless=False))
    with pytest.raises(UserError, match=f"{path}: this WebP is lossy"):
        fetch(tree)


def test_a_class_that_is_missing_is_named(tree: Path) -> None:
    shutil.rmtree(tree / "test" / "horse")
    with pytest.raises(UserError, match=r"test/horse: no such class folder; the classes are airplane, automobile"):
        fetch(tree)


def test_a_class_that_is_unknown_is_named(tree: Path) -> None:
    (tree / "train" / "unicorn").mkdir()
    with pytest.raises(UserError, match="train/unicorn: not a class; the classes are airplane"):
        fetch(tree)


def test_a_missing_image_is_noticed(tree: Path) -> None:
    some_image(tree).unlink()
    with pytest.raises(UserError, match="train: 59 images, expected 60"):
        fetch(tree)


def test_an_image_in_the_wrong_class_is_noticed(tree: Path) -> None:
    some_image(tree).rename(tree / "train" / "dog" / "new.png")
    fetch(tree)
    with pytest.raises(UserError, match="cifar10 train: 5 images of cat, expected 6"):
        data.prepare("cifar10", tree.parent / "data")


@pytest.mark.parametrize("name", ["notes.txt", "folder"])
def test_what_is_no_image_is_refused(tree: Path, name: str) -> None:
    path = tree / "train" / "cat" / name
    path.mkdir() if name == "folder" else path.write_text("about cats")
    with pytest.raises(UserError, match=f"{name}: not a"):
        fetch(tree)


def test_hidden_files_and_files_beside_the_classes_are_passed_over(tree: Path) -> None:
    (tree / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (tree / "train" / "labels.txt").write_text("cat")
    (tree / "README").write_text("CIFAR-10")
    fetch(tree)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palette_images_keep_their_pixels(sample: Sample, tree: Path, mode: str) -> None:
    grey = np.repeat(sample.train.images[0][:, :, :1], 3, axis=2)
    Image.fromarray(grey).convert("L").convert(mode).save(some_image(tree))
    fetch(tree)
    data.prepare("cifar10", tree.parent / "data")
    arrays = load(data.prepared_folder(tree.parent / "data", "cifar10"))
    assert grey.tobytes() in {image.tobytes() for image in arrays.train_images}


def test_images_with_transparency_are_refused(tree: Path) -> None:
    Image.new("RGBA", (32, 32)).save(some_image(tree))
    fetch(tree)
    with pytest.raises(UserError, match="colour mode RGBA, allowed are RGB, L, P"):
        data.prepare("cifar10", tree.parent / "data")


def test_a_truncated_image_is_named(tree: Path) -> None:
    path = some_image(tree)
    path.write_bytes(path.read_bytes()[:1000])
    fetch(tree)
    with pytest.raises(UserError, match=f"{path}: damaged PNG image"):
        data.prepare("cifar10", tree.parent / "data")


def test_an_image_changed_or_gone_since_it_was_fetched_is_named(sample: Sample, tree: Path) -> None:
    fetch(tree)
    path = some_image(tree)
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: the file has gone since cifar10 was fetched"):
        data.prepare("cifar10", tree.parent / "data")
