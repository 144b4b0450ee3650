"""Class folders, `<split>/<class>/<file>`, as users have them; for CIFAR with lossless images in `train` and `test`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.data.images import LOSSLESS, BrokenImageError, Record, lossless_format
from pipeline.utils.errors import UserError
from pipeline.utils.names import checked_name

SPLITS = ("train", "test")
_LITTER = {  # of file managers, discs, network storage and Python
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "_desktop.ini", "picasa.ini", "icon\r"),
    *("__macosx", "lost+found", "@eadir", "#recycle", "$recycle.bin", "system volume information", "__pycache__"),
}
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
UNFINISHED = (".tmp", ".part")  # downloads and copies
_LEFT_OVER = (*_ARCHIVES, *UNFINISHED, ".sh", ".bat", ".py", "~")  # also scripts and backups
_SPELT = {"cra": "crab"}  # the hub's list of CIFAR-100's classes has it so
_SHOWN = 20  # names in a message


def is_class_tree(folder: Path) -> bool:
    """Return whether a folder has a folder for each split."""
    return all((folder / split).is_dir() for split in SPLITS)


def is_archive(name: str) -> bool:
    """Return whether a file is an archive by its name."""
    return name.lower().endswith(_ARCHIVES)


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, in no order, without hidden entries, litter, and files that are left over."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.lower()
            if name.startswith(".") or name in _LITTER or (name.endswith(_LEFT_OVER) and not entry.is_dir()):
                continue
            yield entry


def folders_below(folder: Path) -> list[Path]:
    """Return the folders in a folder that can be searched, sorted."""
    found = (Path(entry.path) for entry in visible(folder) if entry.is_dir())
    return sorted(path for path in found if os.access(path, os.R_OK | os.X_OK))


def named(names: Sequence[str]) -> str:
    """Return some names for a message: all of them, or the first ones and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:_SHOWN]) + more


def canonical(name: str) -> str:
    """Return a class name as the data sets spell it: "Aquarium Fish" is aquarium_fish."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    return _SPELT.get(key, key)


def find_images(folder: Path, classes: Sequence[str], images: Mapping[str, int]) -> list[str]:
    """Find the lossless images of a tree.

    Args:
        folder: of the tree.
        classes: name of each label; each split has a folder for each of them.
        images: number of images of each split, equally many of each class.

    Returns:
        Their paths below the folder, sorted.

    Raises:
        UserError: with a list of all that is wrong: class folders, files that are not lossless images, counts.
    """
    names: list[str] = []
    problems: list[str] = []
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    for split, count in images.items():
        found = sorted(entry.name for entry in visible(folder / split) if entry.is_dir())
        by_class: defaultdict[str, list[str]] = defaultdict(list)
        for name in found:
            by_class[canonical(name)].append(name)
        unknown = [f"{split}/{name}" for key, given in by_class.items() if key not in classes for name in given]
        missing = [f"{split}/{name}" for name in classes if name not in by_class]
        problems += [f"not a class: {named(unknown)}"] if unknown else []
        problems += [f"no such class folder: {named(missing)}"] if missing else []
        for key in (name for name in classes if name in by_class):
            inside = [name for given in by_class[key] for name in _lossless(folder, f"{split}/{given}", wrong)]
            if len(inside) != count // len(classes):
                problems.append(f"{split}/{key} has {len(inside)} images, expected {count // len(classes)}")
            names += inside
    if problems:
        problems.append(f"the classes are {', '.join(classes)}")
    problems += [f"{reason}: {named(sorted(files))}" for reason, files in wrong.items()]
    if problems:
        raise UserError(
            f"{folder}: {'; '.join(problems)}; needed is a folder for each class in train/ and test/,"
            f" with images in a format that keeps the pixels ({LOSSLESS}) and nothing else"
        )
    return sorted(names)


def _lossless(folder: Path, place: str, wrong: defaultdict[str, list[str]]) -> Iterator[str]:
    """Yield the images of a class folder; others are added to `wrong`, by reason."""
    for entry in visible(folder / place):
        name = f"{place}/{entry.name}"
        try:
            checked_name(entry.name, str(folder / place))
            if not entry.is_file():
                raise BrokenImageError("not a file")
            lossless_format(Path(entry.path).read_bytes())
            yield name
        except BrokenImageError as error:
            wrong[str(error)].append(name)


def read_images(folder: Path, names: Sequence[str], split: str, classes: Sequence[str]) -> Iterator[Record]:
    """Yield the encoded images of one split."""
    labels = {name: label for label, name in enumerate(classes)}
    for name in names:
        name_split, class_name, _ = name.split("/")
        if name_split == split:
            yield Record(str(folder / name), (folder / name).read_bytes(), labels[canonical(class_name)])
