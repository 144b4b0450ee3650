"""ImageNet (ILSVRC2012), from the tree of class folders that everybody keeps it in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.data.dataset import ImageFolderSet
from pipeline.data.folders import is_class_tree
from pipeline.data.image_folder import EXCLUDED, SPLITS, list_images, record_listing
from pipeline.data.source import Source
from pipeline.utils.errors import UserError


class ImageNet(ImageFolderSet):
    """1,281,167 training and 50,000 validation images of 1,000 classes."""

    name = "imagenet"
    class_count = 1000
    images: ClassVar[Mapping[str, int]] = {"train": 1_281_167, "val": 50_000}

    def fetch(self, source: str, raw: Path) -> Source:
        """Count and list the tree at `source`; "official" is one that was put into `raw` by hand."""
        folder = raw if source == "official" else Path(source).expanduser().resolve()
        if not is_class_tree(folder, SPLITS):
            raise UserError(
                f"{folder.absolute()}: no {self.name} there; its publisher (image-net.org) hands it out to registered"
                " users only: give as data.source (or --source) a folder with train/<class>/*.JPEG and"
                f" val/<class>/*.JPEG, and if some validation images are to be left out their list as {EXCLUDED}"
            )
        files = list_images(folder, self.class_count, self.images)
        return record_listing(self.name, "." if source == "official" else str(folder), files, raw)
