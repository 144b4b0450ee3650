"""Lossless images in class folders: `train/<class>/<image>` and `test/<class>/<image>`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.data.images import Record, lossless_format
from pipeline.utils.errors import UserError

SPLITS = ("train", "test")


def is_class_tree(folder: Path, splits: Sequence[str] = SPLITS) -> bool:
    """Whether a folder has a folder for each split."""
    return all((folder / split).is_dir() for split in splits)


def find_images(folder: Path, classes: Sequence[str]) -> list[str]:
    """Paths of all images below a folder, relative to it and sorted.

    Raises UserError for a class folder that is missing or unknown and for a file that is no lossless image.
    Names that begin with a dot are passed over.
    """
    names = []
    for split in SPLITS:
        found = {entry.name for entry in visible(folder / split) if entry.is_dir()}
        for name in sorted(found.symmetric_difference(classes)):
            problem = "no such class folder" if name in classes else "not a class"
            raise UserError(f"{folder / split / name}: {problem}; the classes are {', '.join(classes)}")
        for class_name in classes:
            for entry in visible(folder / split / class_name):
                path = Path(entry.path)
                if not entry.is_file():
                    raise UserError(f"{path}: not a file; class folders hold images only")
                lossless_format(path.read_bytes(), str(path))
                names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, in no order, but for names that begin with a dot."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def check_counts(folder: Path, names: Sequence[str], images: Mapping[str, int]) -> None:
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
