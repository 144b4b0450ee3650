"""Class folders of images, `train/<class>/<file>` and `val/<class>/<file>`, and the listing that fetch makes.

The folder of a split may have another name, see `find_splits`.

The listing, ``files.csv``, lies beside the record of the source. It has a line for each file, sorted by split, class
and name: `<folder of the split>/<class>/<file>`, the size in bytes, and 0 instead of 1 for a validation image that is
excluded. In a source of kind `FLAT_KIND` the validation images lie in `val/` itself, and a file of Kaggle's tells
their classes.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.data.folders import UNFINISHED, folders_below, is_archive, named, visible
from pipeline.data.manifest import has_checksum
from pipeline.data.source import Source, record_files
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import csv_text, write_atomic
from pipeline.utils.names import checked_name, checked_path

KIND, FLAT_KIND = "image folder", "image folder with a flat val"
SPLITS = ("train", "val")
LISTING = "files.csv"
EXCLUDED = "excluded.txt"
SOLUTION = "LOC_val_solution.csv"
SUFFIXES = (".jpeg", ".jpg", ".png")
_SPLIT_OF = {
    **{"train": "train", "ilsvrc2012_img_train": "train"},
    **{"val": "val", "validation": "val", "ilsvrc2012_img_val": "val", "test": "val"},
}
"""The split that a folder is, by its name in lower case."""


class Listed(NamedTuple):
    """One file of the tree: its name `<split>/<class>/<file>`, its size in bytes, and whether it is used.

    `folder` is the name of the folder of its split, where that is not the split's.
    """

    name: str
    size: int
    used: bool = True
    folder: str = ""

    @property
    def split(self) -> str:
        """`train` or `val`."""
        return self.name.partition("/")[0]

    @property
    def class_name(self) -> str:
        """Name of its class."""
        return self.name.split("/")[1]

    def path(self, flat: bool) -> str:
        """Return its path below the tree, where the validation images have no class folders if `flat`."""
        split, class_name, file = self.name.split("/")
        place = self.folder or split
        return f"{place}/{file}" if flat and split == "val" else f"{place}/{class_name}/{file}"


def find_splits(place: Path) -> dict[str, list[str]]:
    """Return the names of the folders that may be each split: the usual one, or else all that name it.

    These are `validation`, those of ILSVRC2012's archives, and any of them in another case. `test` is the validation
    split only where no other folder is, and if it has class folders: ImageNet's test images have no classes.
    """
    names = sorted(path.name for path in folders_below(place)) if place.is_dir() else []
    found = {split: [name for name in names if _SPLIT_OF.get(name.lower()) == split] for split in SPLITS}
    found["val"] = [name for name in found["val"] if name.lower() != "test"] or [
        name for name in found["val"] if any(has_class_folders(place / name, place / train) for train in found["train"])
    ]
    return {split: [split] if split in named_so else named_so for split, named_so in found.items()}


def has_class_folders(val: Path, train: Path) -> bool:
    """Return whether a folder of validation images has some of the class folders of the training images."""
    classes = {path.name for path in folders_below(train)}
    return any(path.name in classes for path in folders_below(val))


def is_flat(val: Path, train: Path) -> bool:
    """Return whether validation images lie in the folder itself, whatever other folders are there."""
    entries = list(visible(val))
    images = any(entry.name.lower().endswith(SUFFIXES) for entry in entries)
    return not has_class_folders(val, train) and (images or not any(entry.is_dir() for entry in entries))


def list_images(
    folder: Path,
    class_count: int,
    images: Mapping[str, int],
    solution: Mapping[str, str] | None = None,
    excluded: Path | None = None,
    places: Mapping[str, Path] | None = None,
) -> list[Listed]:
    """List the images of a tree, sorted by name; those that are excluded are marked.

    Args:
        folder: of the tree.
        class_count: class folders that each split must have, the same ones.
        images: files that each split must have, the excluded ones among them.
        solution: class of each validation image, by its name without suffix; None where `val/` has class folders.
        excluded: file that names the excluded validation images, by default ``excluded.txt`` in the tree.
        places: folder of each split, by default the one with its name.

    Raises:
        UserError: with a list of all that is wrong: class folders, files that are not images by their names, counts.
    """
    places = places or {split: folder / split for split in SPLITS}
    train, val = _scan(places["train"], "train"), _scan(places["val"], "val", solution)
    problems = [
        problem
        for split, scanned in (("train", train), ("val", val))
        for problem in _problems(places[split], scanned, class_count, images[split])
    ]
    for split, names in (("train", train.classes - val.classes), ("val", val.classes - train.classes)):
        problems += [f"{places[split].name}/ alone has {named(sorted(names))}"] if names else []
    if problems:
        raise UserError(
            f"{folder}: {'; '.join(problems)}; needed are the same {class_count} class folders in train/ and val/,"
            f" with images ({', '.join(SUFFIXES)}) and nothing else"
        )
    files = sorted(train.files, key=_order) + sorted(val.files, key=_order)
    unused = read_excluded(excluded or folder / EXCLUDED, [listed.name for listed in files if listed.split == "val"])
    return [listed._replace(used=listed.name not in unused) for listed in files]


def _order(listed: Listed) -> list[str]:
    return listed.name.split("/")


class _Scanned(NamedTuple):
    """A split: its classes and images, and the names of what does not belong there, by reason."""

    classes: set[str]
    files: list[Listed]
    wrong: defaultdict[str, list[str]]


def _scan(place: Path, split: str, solution: Mapping[str, str] | None = None) -> _Scanned:
    classes, files, wrong = scanned = _Scanned(set(), [], defaultdict(list))
    folder = "" if place.name == split else place.name

    def add(class_name: str, entry: os.DirEntry[str]) -> None:
        classes.add(class_name)
        name = f"{split}/{class_name}/{checked_name(entry.name, str(place))}"
        files.append(Listed(name, entry.stat().st_size, folder=folder))

    for entry in visible(place):
        if entry.is_dir() and solution is not None:
            if any(visible(Path(entry.path))):
                wrong["folders beside the images"].append(entry.name)
        elif entry.is_dir():
            classes.add(checked_name(entry.name, str(place)))
            for inside in visible(Path(entry.path)):
                if inside.name.lower().endswith(SUFFIXES) and inside.is_file():
                    add(entry.name, inside)
                else:
                    wrong["not images by their names"].append(f"{entry.name}/{inside.name}")
        elif entry.name.lower().endswith(SUFFIXES):
            if solution is None:
                wrong["images outside of class folders"].append(entry.name)
            elif class_name := solution.get(Path(entry.name).stem):
                add(class_name, entry)
            else:
                wrong[f"images that {SOLUTION} does not name"].append(entry.name)
    return scanned


def _problems(place: Path, scanned: _Scanned, class_count: int, count: int) -> Iterator[str]:
    """Yield what is wrong with a split; where counts are wrong, the likely culprits, too."""
    classes, files, wrong = scanned
    split = place.name
    if len(classes) != class_count:
        yield f"{split}/ has {len(classes)} class folders, expected {class_count}"
    if len(files) != count:
        yield f"{split}/ has {len(files)} images, expected {count}"
    wrong["class folders without images"] += classes - {listed.class_name for listed in files}
    if len(classes) != class_count or len(files) != count:
        ours = {name for name in classes if name[0] == "n" and name[1:].isdecimal()}  # as WordNet numbers its nouns
        if len(ours) > len(classes) // 2:
            wrong["class folders whose names are unlike the others"] += classes - ours
        archives = [name for name in os.listdir(place) if is_archive(name)]  # noqa: PTH208
        wrong["archives that are not extracted"] += [name for name in archives if name.partition(".")[0] not in classes]
        inside = ((folder, name) for folder in (place, *folders_below(place)) for name in os.listdir(folder))  # noqa: PTH208
        parts = [(folder / name).relative_to(place) for folder, name in inside if name.lower().endswith(UNFINISHED)]
        wrong["unfinished downloads or copies"] += [part.as_posix() for part in parts]
    for reason, names in wrong.items():
        if names:
            yield f"{reason}: {named([f'{split}/{name}' for name in sorted(names)])}"


def read_solution(path: Path) -> dict[str, str]:
    """Return the class of each validation image, by its name without suffix, from Kaggle's ``LOC_val_solution.csv``.

    Its columns are ImageId and PredictionString; the latter has the class and a box, for each object in the image.
    """
    found = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                classes = set(row["PredictionString"].split()[::5])
                if len(classes) != 1:
                    raise UserError(f"{path}: {row['ImageId']!r:.80} has {len(classes)} classes, needed is one")
                found[checked_name(row["ImageId"], str(path))] = checked_name(classes.pop(), str(path))
    except UserError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise UserError(f"{path}: not Kaggle's list of ImageId,PredictionString ({one_line(error)})") from None
    return found


def read_excluded(path: Path, names: Sequence[str]) -> set[str]:
    """Return the validation images that are not tested on (the paper tests the "non-blacklisted" ones).

    Each line of the file is the name of a validation image, with or without folder and suffix, or its number in
    ILSVRC2012, from 1, as in the development kit's list. Empty lines and what follows a ``#`` do not count.

    Args:
        path: of the file; without one, no image is excluded.
        names: paths of all validation images.

    Raises:
        UserError: naming all lines that are not validation images; for a file that is not in UTF-8, or when no image
            is left.
    """
    if not os.path.lexists(path):
        return set()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    known = {Path(name).stem: name for name in names}
    entries = [entry for line in lines if (entry := line.partition("#")[0].strip())]
    stems = {entry: f"ILSVRC2012_val_{int(entry):08d}" if _is_number(entry) else Path(entry).stem for entry in entries}
    if unknown := [repr(entry) for entry, stem in stems.items() if stem not in known]:
        raise UserError(f"{path}: not validation images: {named(unknown)}")
    found = {known[stem] for stem in stems.values()}
    if found and len(found) == len(names):
        raise UserError(f"{path}: names all {len(names)} validation images; at least one must be left to test on")
    return found


def _is_number(entry: str) -> bool:
    return entry.isdecimal() and len(entry) <= 8


def record_listing(dataset: str, location: str, files: Sequence[Listed], raw: Path, kind: str = KIND) -> Source:
    """Write the listing into `raw`; return the record of a source whose tree lies at `location`."""
    rows = ((listed.path(flat=False), listed.size, int(listed.used)) for listed in files)
    write_atomic(raw / LISTING, csv_text(("name", "bytes", "used"), rows, exact=True))
    return Source(dataset, kind, location, record_files(raw, [LISTING]))


def read_listing(source: Source, raw: Path) -> list[Listed]:
    """Return the listing that belongs to a record in `raw`; UserError if it is another one."""
    path = raw / LISTING
    wrong = f"{path}: not the listing that fetch wrote; fetch {source.dataset} again"
    known = source.files.get(LISTING)
    if source.kind not in (KIND, FLAT_KIND) or known is None or not has_checksum(path, known.sha256):
        raise UserError(wrong)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_listed(row, str(path)) for row in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(wrong) from None
    return rows


def _listed(row: Mapping[str, str], place: str) -> Listed:
    """Return the file of a row of the listing; ValueError, KeyError, TypeError or UserError for a wrong one."""
    folder, class_name, file = checked_path(row["name"], place).split("/")
    split = _SPLIT_OF[folder.lower()]
    name = f"{split}/{class_name}/{file}"
    return Listed(name, int(row["bytes"]), row["used"] == "1", "" if folder == split else folder)
