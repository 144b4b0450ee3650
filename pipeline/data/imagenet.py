"""ImageNet (ILSVRC2012), from the usual tree of class folders or from Kaggle's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.data import image_folder
from pipeline.data.dataset import ImageFolderSet
from pipeline.data.folders import folders_below, is_archive, named
from pipeline.data.image_folder import EXCLUDED, FLAT_KIND, KIND, SOLUTION, SPLITS
from pipeline.data.source import Source, local_path
from pipeline.utils.errors import UserError

_KAGGLE = ("", "CLS-LOC", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")  # places of the tree below a folder of Kaggle's
_NEEDED = (
    "its publisher (image-net.org) hands it out to registered users only: give as data.source (or --source) a folder"
    " with train/<class>/*.JPEG and val/<class>/*.JPEG, or Kaggle's with ILSVRC/Data/CLS-LOC and"
    f" {SOLUTION}, and if some validation images are to be left out their list as {EXCLUDED}"
)


class ImageNet(ImageFolderSet):
    """1,281,167 training and 50,000 validation images of 1,000 classes."""

    name = "imagenet"
    class_count = 1000
    images: ClassVar[Mapping[str, int]] = {"train": 1_281_167, "val": 50_000}

    def fetch(self, source: str, raw: Path) -> Source:
        """Count and list the tree at `source`; "official" is one that was put into `raw` by hand."""
        given = raw if source == "official" else local_path(source)
        places = self._find(given)
        tree, solution = places["val"].parent, None
        if image_folder.is_flat(places["val"], places["train"]):
            solution = image_folder.read_solution(self._solution(given, places["val"]))
        lists = [path for folder in dict.fromkeys((tree, given)) if os.path.lexists(path := folder / EXCLUDED)]
        if len(lists) > 1:
            raise UserError(f"{named([str(path) for path in lists])}: only one list of excluded images may be there")
        excluded = next(iter(lists), None)
        files = image_folder.list_images(tree, self.class_count, self.images, solution, excluded, places)
        location = tree.relative_to(raw).as_posix() if source == "official" else str(tree)
        return image_folder.record_listing(self.name, location, files, raw, KIND if solution is None else FLAT_KIND)

    def _find(self, given: Path) -> dict[str, Path]:
        """Return the folder of each split, from the one tree at a place or one level down; UserError without one."""
        below = [path for path in folders_below(given) if path.name not in SPLITS] if given.is_dir() else []
        places = dict.fromkeys(folder / place for folder in (given, *below) for place in _KAGGLE)
        found = {place: image_folder.find_splits(place) for place in places}
        trees = {place: splits for place, splits in found.items() if all(splits.values())}
        if len(trees) > 1:
            raise UserError(f"{given}: has {self.name} in several places: {named([str(t) for t in trees])}; give one")
        if not trees:
            raise UserError(f"{given.absolute()}: no {self.name} there, {_reason(given, found)}; {_NEEDED}")
        ((tree, splits),) = trees.items()
        if several := {split: named(names) for split, names in splits.items() if len(names) > 1}:
            problems = [f"{names} may each be {split}/, rename the right one so" for split, names in several.items()]
            raise UserError(f"{tree}: {'; '.join(problems)}")
        return {split: tree / names[0] for split, names in splits.items()}

    def _solution(self, given: Path, val: Path) -> Path:
        """Return the file that tells the classes of a flat `val`, from there, its parents or the folder given."""
        for place in dict.fromkeys((given, val, *val.parents[:4])):  # Kaggle's lies beside ILSVRC/Data/CLS-LOC
            for name in sorted(os.listdir(place)) if os.access(place, os.R_OK) else ():  # noqa: PTH208
                if name.lower() == SOLUTION.lower() and (place / name).is_file():
                    return place / name
        raise UserError(
            f"{val}: has no class folders, and there is no {SOLUTION} in {given} that would tell the class"
            " of each image; put Kaggle's there, or move the images into class folders"
        )


def _reason(given: Path, found: Mapping[Path, Mapping[str, list[str]]]) -> str:
    """Describe why there is no tree at any of the places, with the folders of splits found there."""
    if not given.is_dir():
        return "it is a file, which must be extracted first" if os.path.lexists(given) else "there is no such folder"
    half = [
        f"{place / name} is there, but no {other}/ beside it"
        for place, splits in found.items()
        for split, other in (SPLITS, SPLITS[::-1])
        for name in splits[split]
    ]
    if half:
        return "; ".join(half)
    content = sorted(entry.name for entry in given.iterdir())
    if archives := [name for name in content if is_archive(name)]:
        return f"only archives that are not extracted: {named(archives)}"
    return f"it holds {named(content)}" if content else "it is empty"
