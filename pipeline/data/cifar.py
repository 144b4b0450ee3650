"""CIFAR-10 and CIFAR-100, from the official archive, its extracted batches, Parquet files or class folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.data import folders, parquet
from pipeline.data.archive import read_batch, read_files, read_members
from pipeline.data.dataset import DataSet, Split, concatenate
from pipeline.data.download import DownloadError, download, md5_file
from pipeline.data.images import Record, decode_records
from pipeline.data.source import RECORD, Source, local_path, record_files
from pipeline.utils.errors import UserError

_FORMS = (
    "the archive of the Python version, a folder with it or with its batches, a folder with Parquet files"
    " (train-*.parquet, test-*.parquet), or one with class folders of lossless images"
    " (train/<class>/*.png, test/<class>/*.png)"
)

_CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class Cifar(DataSet):
    """What CIFAR-10 and CIFAR-100 share: 32x32 colour images, equally many of each class, the forms of source."""

    image_shape = (32, 32, 3)
    train_images = 50_000
    test_images = 10_000

    torchvision_name: ClassVar[str]  # of the class that knows address and MD5 of the official archive
    archive_name: ClassVar[str]
    batch_folder: ClassVar[str]
    train_batches: ClassVar[tuple[str, ...]]
    test_batches: ClassVar[tuple[str, ...]]
    batch_labels: ClassVar[str]

    @property
    def _images(self) -> dict[str, int]:
        return {"train": self.train_images, "test": self.test_images}

    @property
    def _batches(self) -> tuple[str, ...]:
        return (*self.train_batches, *self.test_batches)

    @property
    def _official(self) -> Any:
        """Torchvision's class, with `url`, `filename` and `tgz_md5` of the archive; its import takes seconds."""
        import torchvision

        return getattr(torchvision.datasets, self.torchvision_name)

    def fetch(self, source: str, raw: Path) -> Source:
        """Download the archive (`source` = "official"), or verify and record the local data at `source`.

        A folder may hold the data itself or have them one level down: an extracted archive, its parent, torchvision's
        root, a clone from the hub, or the hub's cache, with one snapshot of them.
        """
        if source == "official":
            return self._fetch_archive(raw)
        given = local_path(source)
        if given.is_file():
            return self._record_archive(given)
        if not given.is_dir():
            raise UserError(f"source {source!r} of {self.name}: no such file or folder; allowed are {_FORMS}")
        kind, place = self._find(given)
        if kind == "archive":
            return self._record_archive(place)
        if kind == "batches":
            self._decode_batches(place, read_files(place, self._batches))
            return Source(self.name, kind, str(place), record_files(place, self._batches))
        if kind == "parquet":
            names = parquet.find_shards(place)
            parquet.check_shards(place, names, self._images, self.classes)
            names = [(place / name).relative_to(given).as_posix() for name in names]
            return Source(self.name, kind, str(given), record_files(given, names))
        names = folders.find_images(place, self.classes, self._images)
        return Source(self.name, kind, str(place), record_files(place, names))

    def _find(self, given: Path) -> tuple[str, Path]:
        """Return the one form of data that a folder holds, and its path; UserError if there is none, or several."""
        snapshots = given if given.name == "snapshots" else given / "snapshots"  # of the hub's cache
        roots = [given, *(folders.folders_below(snapshots) if snapshots.is_dir() else ())]
        places = dict.fromkeys(place for root in roots for place in (root, *folders.folders_below(root)))
        found = [form for place in places for form in self._forms(place, place == given)]
        archives = [form for form in found if form[0] == "archive"]
        if archives and len(found) > 1:  # torchvision keeps archive and batches, browsers keep several downloads
            whole = [form for form in archives if md5_file(form[1]) == self._official.tgz_md5][:1]
            if whole:
                found = whole + [form for form in found if form[0] not in ("archive", "batches")]
            elif any(kind == "batches" for kind, _ in found):
                found = [form for form in found if form not in archives]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{place} ({kind})" for kind, place in found)
            raise UserError(f"{given}: has {self.name} in several places: {several}; give one of them as the source")
        content = folders.named(sorted(entry.name for entry in given.iterdir())) or "nothing"
        raise UserError(f"{given}: no {self.name} there, it holds {content}; needed is {_FORMS}")

    def _forms(self, place: Path, is_given: bool) -> Iterator[tuple[str, Path]]:
        stem = self.archive_name.removesuffix(".tar.gz")
        name_form = re.compile(rf"{stem} ?(\(\d+\))?\.(tar(\.gz|\.bz2|\.xz)?|tgz)", re.IGNORECASE)
        for path in sorted(place.iterdir()):
            if name_form.fullmatch(path.name) and path.is_file():
                yield "archive", path
        if any((place / name).is_file() for name in self._batches):
            yield "batches", place
        if parquet.find_shards(place):
            yield "parquet", place
        elif folders.is_class_tree(place):
            # A tree one level down may belong to another data set, which would make the source ambiguous.
            inside = (folders.canonical(entry.name) for entry in folders.visible(place / "train"))
            if is_given or any(name in self.classes for name in inside):
                yield "folders", place

    def _fetch_archive(self, raw: Path) -> Source:
        """Download the archive that torchvision names, checked against the MD5 that torchvision gives."""
        official = self._official
        archive = raw / official.filename
        if not archive.is_file() or md5_file(archive) != official.tgz_md5:
            try:
                download(official.url, archive, official.tgz_md5)
            except DownloadError as error:
                wrong = f"{archive} is damaged and " if archive.is_file() else ""
                raise UserError(
                    f"{self.name}: {wrong}{official.url} cannot be downloaded ({error}); either put that file at "
                    f"{archive.absolute()} by hand, or give as data.source (or --source) {_FORMS}"
                ) from None
        return Source(self.name, "archive", ".", record_files(raw, [official.filename]))

    def _record_archive(self, archive: Path) -> Source:
        """Return the record of a local archive: the official one, or any other with the same batches."""
        if md5_file(archive) != self._official.tgz_md5:
            self._decode_archive(archive)
        return Source(self.name, "archive", str(archive.parent), record_files(archive.parent, [archive.name]))

    def decode(self, source: Source, raw: Path) -> tuple[Split, Split]:
        """Return both splits; UserError unless they have as many images of each class as the data set has."""
        folder, names = source.folder(raw), list(source.files)
        if source.kind == "archive":
            return self._decode_archive(folder / names[0])
        if source.kind == "batches":
            return self._decode_batches(folder, read_files(folder, self._batches))
        if source.kind not in ("parquet", "folders"):
            raise UserError(f"{raw / RECORD}: unknown kind {source.kind!r}; fetch {self.name} again")
        records: dict[str, Iterable[Record]]
        if source.kind == "parquet":
            records = {
                split: parquet.read_shards(folder, [n for n in names if parquet.split_of(n) == split], self.classes)
                for split in folders.SPLITS
            }
        else:
            records = {split: folders.read_images(folder, names, split, self.classes) for split in folders.SPLITS}
        train, test = (
            decode_records(
                records[split], self._images[split], self.image_shape, len(self.classes), f"{self.name} {split}"
            )
            for split in folders.SPLITS
        )
        return self._balanced(train, test)

    def _decode_archive(self, archive: Path) -> tuple[Split, Split]:
        return self._decode_batches(archive, read_members(archive, self.batch_folder, self._batches))

    def _decode_batches(self, place: Path, contents: Mapping[str, bytes]) -> tuple[Split, Split]:
        """Return each split, the concatenation of its batches."""
        batches = [
            read_batch(contents[name], self.batch_labels, self.image_shape, len(self.classes), f"{place}: {name}")
            for name in self._batches
        ]
        split_at = len(self.train_batches)
        return self._balanced(concatenate(batches[:split_at]), concatenate(batches[split_at:]))

    def _balanced(self, train: Split, test: Split) -> tuple[Split, Split]:
        """Return both splits; UserError unless they have equally many images of each class."""
        problems = []
        for split, title in ((train, "train"), (test, "test")):
            expected = self._images[title] // len(self.classes)
            counts = np.bincount(split.labels, minlength=len(self.classes))
            problems += [
                f"{title} has {found} images of {name}, expected {expected}"
                for name, found in zip(self.classes, counts, strict=True)
                if found != expected
            ]
        if problems:
            raise UserError(f"{self.name}: {'; '.join(problems)}")
        return train, test


class Cifar10(Cifar):
    """CIFAR-10: 10 classes, 5,000 training and 1,000 test images each."""

    name = "cifar10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    torchvision_name = "CIFAR10"
    archive_name = "cifar-10-python.tar.gz"
    batch_folder = "cifar-10-batches-py"
    train_batches = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_batches = ("test_batch",)
    batch_labels = "labels"


class Cifar100(Cifar):
    """CIFAR-100: 100 classes (the fine labels), 500 training and 100 test images each."""

    name = "cifar100"
    classes = tuple(_CIFAR100_CLASSES.split())
    torchvision_name = "CIFAR100"
    archive_name = "cifar-100-python.tar.gz"
    batch_folder = "cifar-100-python"
    train_batches = ("train",)
    test_batches = ("test",)
    batch_labels = "fine_labels"
