"""Lossless images in class folders: `train/<class>/<image>` and `test/<class>/<image>`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.data.images import Record, lossless_format
from pipeline.errors import UserError

SPLITS = ("train", "test")


def is_class_tree(folder: Path) -> bool:
    """Whether a folder has a folder for each split."""
    return all((folder / split).is_dir() for split in SPLITS)


def find_images(folder: Path, classes: Sequence[str]) -> list[str]:
    """Paths of all images below a folder, relative to it and sorted.

    Raises UserError for a class folder that is missing or unknown and for a file that is no lossless image.
    Names that begin with a dot are passed over.
    """
    names = []
    for split in SPLITS:
        found = {path.name for path in _visible(folder / split) if path.is_dir()}
        for name in sorted(found.symmetric_difference(classes)):
            problem = "no such class folder" if name in classes else "not a class"
            raise UserError(f"{folder / split / name}: {problem}; the classes are {', '.join(classes)}")
        for class_name in classes:
            for path in _visible(folder / split / class_name):
                if not path.is_file():
                    raise UserError(f"{path}: not a file; class folders hold images only")
                lossless_format(path.read_bytes(), str(path))
                names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def check_counts(folder: Path, names: Sequence[str], images: dict[str, int]) -> None:
    """Raise UserError unless there are `images[split]` images in each split."""
    for split, expected in images.items():
        count = sum(name.startswith(f"{split}/") for name in names)
        if count != expected:
            raise UserError(f"{folder / split}: {count} images, expected {expected}")


def read_images(folder: Path, names: Sequence[str], split: str, classes: Sequence[str]) -> Iterator[Record]:
    """The encoded images of one split."""
    labels = {name: label for label, name in enumerate(classes)}
    for name in names:
        name_split, class_name, _ = name.split("/")
        if name_split == split:
            path = folder / name
            yield Record(str(path), path.read_bytes(), labels[class_name])
