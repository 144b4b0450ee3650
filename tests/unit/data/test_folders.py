"""Class-folder trees: only lossless images, and every class."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pipeline import data
from pipeline.data.arrays import load
from pipeline.utils.errors import UserError
from tests.unit.data.image_tree import LITTER_FILES, LITTER_FOLDERS

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
    with pytest.raises(UserError, match=r"JPEG is lossy, .*: test/airplane/\d+\.jpeg, .* and 60 more; .*PNG, BMP"):
        fetch(tree)


def test_a_lossy_image_under_a_lossless_name_is_refused(sample: Sample, tree: Path) -> None:
    path = some_image(tree)
    path.write_bytes(sample.encode(sample.train.images[0], "JPEG"))
    with pytest.raises(UserError, match=f"JPEG is lossy, .*: train/cat/{path.name}; needed"):
        fetch(tree)
    path.write_bytes(sample.encode(sample.train.images[0], "WEBP", lossless=False))
    with pytest.raises(UserError, match=f"this WebP is lossy, .*: train/cat/{path.name}; needed"):
        fetch(tree)


def test_all_that_is_wrong_is_listed_in_one_line(tree: Path) -> None:
    shutil.rmtree(tree / "test" / "horse")
    (tree / "train" / "unicorn").mkdir()
    (tree / "train" / "two\nlines").mkdir()
    some_image(tree).rename(tree / "train" / "dog" / "new.png")
    (tree / "train" / "cat" / "notes.txt").write_text("about cats")
    with pytest.raises(UserError) as caught:
        fetch(tree)
    message = str(caught.value)
    assert message.isprintable() and message.startswith(f"{tree}: ")
    for problem in (
        "no such class folder: test/horse;",
        "not a class: 'train/two\\nlines', train/unicorn;",
        "train/cat has 5 images, expected 6;",
        "train/dog has 7 images, expected 6;",
        "the classes are airplane, automobile, bird",
        "not an image of a known lossless format: train/cat/notes.txt;",
    ):
        assert problem in message


@pytest.mark.parametrize("spelling", [str.capitalize, str.upper, lambda name: name.replace("_", " ")])
def test_another_spelling_of_a_class_is_that_class(either_sample: Sample, spelling: Any, tmp_path: Path) -> None:
    name, tree = either_sample.dataset.name, either_sample.write_tree(tmp_path / "tree")
    prepared = []
    for root in ("before", "after"):
        data.fetch(name, str(tree), tmp_path / root)
        prepared.append(data.prepare(name, tmp_path / root)["checksum"])
        for folder in [*tree.glob("*/*")]:
            folder.rename(folder.with_name(spelling(folder.name)))
    assert prepared[0] == prepared[1]


@pytest.mark.parametrize("name", ["notes.txt", "folder", "folder.tmp", "folder~"])
def test_what_is_no_image_is_refused(tree: Path, name: str) -> None:
    path = tree / "train" / "cat" / name
    path.mkdir() if "folder" in name else path.write_text("about cats")
    with pytest.raises(UserError, match=f"not an? .*: train/cat/{name};"):
        fetch(tree)


def test_litter_and_files_beside_the_classes_are_passed_over(tree: Path) -> None:
    fetch(tree)
    before = data.prepare("cifar10", tree.parent / "data")["raw_checksum"]
    for name in ("", "train/", "train/cat/"):
        for litter in LITTER_FILES:
            (tree / f"{name}{litter}").write_bytes(b"x")
        for folder in LITTER_FOLDERS:
            (tree / name / folder).mkdir()
            (tree / name / folder / "0001.png").write_bytes(b"x")
    (tree / "train" / "labels.txt").write_text("cat")
    (tree / "README").write_text("CIFAR-10")
    fetch(tree)
    assert data.prepare("cifar10", tree.parent / "data")["raw_checksum"] == before


def test_classes_are_listed_in_their_order(tree: Path) -> None:
    for path in (tree / "train").iterdir():
        (path / "more").mkdir()
        next(path.glob("*.png")).unlink()
    with pytest.raises(UserError) as caught:
        fetch(tree)
    found = re.findall(r"train/(\w+) has 5 images", str(caught.value))
    assert found == list(data.DATASETS["cifar10"].classes)  # type: ignore[union-attr]


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
    with pytest.raises(UserError, match=r"colour mode RGBA, allowed are RGB, L, P; save it again, .*, as RGB"):
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
