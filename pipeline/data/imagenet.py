"""ImageNet (ILSVRC2012), from the usual tree of class folders or from Kaggle's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.data import image_folder
from pipeline.data.dataset import ImageFolderSet
from pipeline.data.folders import is_archive, is_class_tree, named, visible
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
        tree = self._find(given)
        solution = None
        if not any(entry.is_dir() for entry in visible(tree / "val")):
            solution = image_folder.read_solution(self._solution(given, tree))
        lists = [path for folder in dict.fromkeys((tree, given)) if os.path.lexists(path := folder / EXCLUDED)]
        if len(lists) > 1:
            raise UserError(f"{named([str(path) for path in lists])}: only one list of excluded images may be there")
        files = image_folder.list_images(tree, self.class_count, self.images, solution, next(iter(lists), None))
        location = tree.relative_to(raw).as_posix() if source == "official" else str(tree)
        return image_folder.record_listing(self.name, location, files, raw, KIND if solution is None else FLAT_KIND)

    def _find(self, given: Path) -> Path:
        """Return the one folder with train/ and val/ at a place or one level down; UserError if there is none."""
        places = [given / place for place in _KAGGLE]
        if given.is_dir():
            below = sorted(Path(entry.path) for entry in visible(given) if entry.is_dir())
            places += [folder / place for folder in below if folder.name not in SPLITS for place in _KAGGLE]
        places = list(dict.fromkeys(places))
        trees = [place for place in places if is_class_tree(place, SPLITS)]
        if len(trees) == 1:
            return trees[0]
        if trees:
            raise UserError(f"{given}: has {self.name} in several places: {named([str(t) for t in trees])}; give one")
        raise UserError(f"{given.absolute()}: no {self.name} there, {_reason(given, places)}; {_NEEDED}")

    def _solution(self, given: Path, tree: Path) -> Path:
        """Return the file that tells the classes of a flat `val/`, from the folder that was given up to the tree."""
        places = dict.fromkeys((given, tree, *tree.parents[:3]))  # Kaggle's lies beside ILSVRC/Data/CLS-LOC
        found = next((place / SOLUTION for place in places if (place / SOLUTION).is_file()), None)
        if found is None:
            raise UserError(
                f"{tree / 'val'}: has no class folders, and there is no {SOLUTION} in {given} that would tell the class"
                " of each image; put Kaggle's there, or move the images into class folders"
            )
        return found


def _reason(given: Path, places: list[Path]) -> str:
    """Describe why there is no tree at any of the places."""
    if not given.is_dir():
        return "it is a file, which must be extracted first" if os.path.lexists(given) else "there is no such folder"
    half = [place / split for place in places for split in SPLITS if (place / split).is_dir()]
    if half:
        other = {"train": "val", "val": "train"}
        return "; ".join(f"{path} is there, but no {other[path.name]}/ beside it" for path in half)
    content = sorted(entry.name for entry in given.iterdir())
    if archives := [name for name in content if is_archive(name)]:
        return f"only archives that are not extracted: {named(archives)}"
    return f"it holds {named(content)}" if content else "it is empty"
