"""Class folders of images, `train/<class>/<file>` and `val/<class>/<file>`, and the listing that fetch makes.

The listing, ``files.csv``, lies beside the record of the source. It has a line for each file, sorted by name: the path
below the tree, the size in bytes, and 0 instead of 1 for a validation image that is excluded.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.data.folders import check_counts, visible
from pipeline.data.source import Source, record_files
from pipeline.utils.errors import UserError
from pipeline.utils.files import csv_text, sha256_file, write_atomic

KIND = "image folder"
SPLITS = ("train", "val")
LISTING = "files.csv"
EXCLUDED = "excluded.txt"
SUFFIXES = (".jpeg", ".jpg", ".png")
_SHOWN = 20  # names in a message


class Listed(NamedTuple):
    """One file of the tree: its path below it, its size in bytes, and whether it is used."""

    name: str
    size: int
    used: bool = True

    @property
    def split(self) -> str:
        """`train` or `val`."""
        return self.name.partition("/")[0]

    @property
    def class_name(self) -> str:
        """Name of its class folder."""
        return self.name.split("/")[1]


def list_images(folder: Path, class_count: int, images: Mapping[str, int]) -> list[Listed]:
    """All images of a tree, sorted by name; those that ``excluded.txt`` names are marked.

    Names that begin with a dot are passed over.

    Args:
        class_count: class folders that each split must have, the same ones.
        images: files that each split must have, the excluded ones among them.

    Raises:
        UserError: for other counts, an empty class, or a file that is no image by its name.
    """
    classes = {split: sorted(entry.name for entry in visible(folder / split)) for split in SPLITS}
    for split, found in classes.items():
        if len(found) != class_count:
            raise UserError(f"{folder / split}: {len(found)} class folders, expected {class_count}")
    for name in sorted(set(classes["train"]).symmetric_difference(classes["val"])):
        raise UserError(f"{folder}: class folder {name} is in one of train/ and val/ only")
    files = [listed for split in SPLITS for name in classes[split] for listed in _images(folder, split, name)]
    check_counts(folder, [listed.name for listed in files], images)
    excluded = read_excluded(folder / EXCLUDED, [listed.name for listed in files if listed.split == "val"])
    return [listed._replace(used=listed.name not in excluded) for listed in files]


def _images(folder: Path, split: str, class_name: str) -> list[Listed]:
    place = folder / split / class_name
    if not place.is_dir():
        raise UserError(f"{place}: not a folder; {split}/ holds one folder for each class")
    found = []
    for entry in visible(place):
        if not entry.is_file() or not entry.name.lower().endswith(SUFFIXES):
            raise UserError(f"{entry.path}: not an image by its name; allowed are {', '.join(SUFFIXES)}")
        found.append(Listed(f"{split}/{class_name}/{entry.name}", entry.stat().st_size))
    if not found:
        raise UserError(f"{place}: no image in it")
    return sorted(found)


def read_excluded(path: Path, names: Sequence[str]) -> set[str]:
    """The validation images that are not tested on (the paper tests the "non-blacklisted" ones); no file, none.

    Each line of the file is the name of a validation image, with or without folder and suffix, or its number in
    ILSVRC2012, from 1, as in the development kit's list. Empty lines and what follows a ``#`` do not count.

    Args:
        names: paths of all validation images.

    Raises:
        UserError: for a line that is no validation image, a file that is not in UTF-8, or when no image is left.
    """
    if not path.is_file():
        return set()
    known = {Path(name).stem: name for name in names}
    found = set()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error.reason} at byte {error.start})") from None
    for line in lines:
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        stem = f"ILSVRC2012_val_{int(entry):08d}" if entry.isdecimal() else Path(entry).stem
        if stem not in known:
            raise UserError(f"{path}: {entry!r} is no validation image")
        found.add(known[stem])
    if found and len(found) == len(names):
        raise UserError(f"{path}: names all {len(names)} validation images; at least one must be left to test on")
    return found


def record_listing(dataset: str, location: str, files: Sequence[Listed], raw: Path) -> Source:
    """Write the listing into `raw`; the record of a source whose tree lies at `location`."""
    rows = ((listed.name, listed.size, int(listed.used)) for listed in files)
    write_atomic(raw / LISTING, csv_text(("name", "bytes", "used"), rows))
    return Source(dataset, KIND, location, record_files(raw, [LISTING]))


def read_listing(source: Source, raw: Path) -> list[Listed]:
    """The listing that belongs to a record in `raw`; UserError if it is another one."""
    path = raw / LISTING
    known = source.files.get(LISTING)
    if source.kind != KIND or known is None or not path.is_file() or sha256_file(path) != known.sha256:
        raise UserError(f"{path}: not the listing that fetch wrote; fetch {source.dataset} again")
    with path.open(newline="", encoding="utf-8") as file:
        return [Listed(row["name"], int(row["bytes"]), row["used"] == "1") for row in csv.DictReader(file)]


def named(names: Sequence[str]) -> str:
    """Some names for a message: all of them, or the first ones and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
