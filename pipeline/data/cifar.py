"""CIFAR-10 and CIFAR-100, from the official archive, Parquet shards or class folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipeline.data import folders, parquet
from pipeline.data.archive import read_batch, read_members
from pipeline.data.dataset import DataSet, Split, concatenate
from pipeline.data.download import DownloadError, download, md5_file
from pipeline.data.images import Record, decode_records
from pipeline.data.source import RECORD, Source, record_files
from pipeline.utils.errors import UserError

_FORMS = (
    "a folder with Parquet shards (train-*.parquet, test-*.parquet) "
    "or with class folders of lossless images (train/<class>/*.png, test/<class>/*.png)"
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
    """What CIFAR-10 and CIFAR-100 share: 32x32 colour images, equally many of each class, three sources."""

    image_shape = (32, 32, 3)
    train_images = 50_000
    test_images = 10_000

    torchvision_name: ClassVar[str]  # of the class that knows address and MD5 of the official archive
    batch_folder: ClassVar[str]
    train_batches: ClassVar[tuple[str, ...]]
    test_batches: ClassVar[tuple[str, ...]]
    batch_labels: ClassVar[str]
    label_columns: ClassVar[tuple[str, ...]]  # in Parquet shards, the best first

    @property
    def _images(self) -> dict[str, int]:
        return {"train": self.train_images, "test": self.test_images}

    def fetch(self, source: str, raw: Path) -> Source:
        """Download the archive (`source` = "official"), or record the files of the local folder `source`."""
        if source == "official":
            return self._fetch_archive(raw)
        folder = Path(source).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"source {source!r} of {self.name}: no such folder; allowed are 'official' and {_FORMS}")
        if names := parquet.find_shards(folder):
            parquet.check_shards(folder, names, self._images, self.label_columns)
            return Source(self.name, "parquet", str(folder), record_files(folder, names))
        if folders.is_class_tree(folder):
            names = folders.find_images(folder, self.classes)
            folders.check_counts(folder, names, self._images)
            return Source(self.name, "folders", str(folder), record_files(folder, names))
        raise UserError(f"source {source!r} of {self.name}: found neither form of data; needed is {_FORMS}")

    def _fetch_archive(self, raw: Path) -> Source:
        """The archive that torchvision names, checked against the MD5 that torchvision gives."""
        import torchvision

        official = getattr(torchvision.datasets, self.torchvision_name)
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

    def decode(self, source: Source, raw: Path) -> tuple[Split, Split]:
        """Both splits; UserError unless they have as many images of each class as the data set has."""
        folder = source.folder(raw)
        if source.kind == "archive":
            train, test = self._decode_archive(folder / next(iter(source.files)))
        elif source.kind == "parquet":
            train, test = (self._decode_shards(folder, list(source.files), split) for split in folders.SPLITS)
        elif source.kind == "folders":
            train, test = (self._decode_tree(folder, list(source.files), split) for split in folders.SPLITS)
        else:
            raise UserError(f"{raw / RECORD}: unknown kind {source.kind!r}; fetch {self.name} again")
        self._check_balance(train, "train", self.train_images)
        self._check_balance(test, "test", self.test_images)
        return train, test

    def _decode_archive(self, archive: Path) -> tuple[Split, Split]:
        """Each split is the concatenation of its batches."""
        names = [f"{self.batch_folder}/{name}" for name in (*self.train_batches, *self.test_batches)]
        batches = [
            read_batch(pickled, self.batch_labels, self.image_shape, len(self.classes), f"{archive}: {name}")
            for name, pickled in read_members(archive, names).items()
        ]
        return concatenate(batches[: len(self.train_batches)]), concatenate(batches[len(self.train_batches) :])

    def _decode_shards(self, folder: Path, names: list[str], split: str) -> Split:
        return self._decode_records(
            parquet.read_shards(folder, parquet.shards_of(names, split), self.label_columns), split
        )

    def _decode_tree(self, folder: Path, names: list[str], split: str) -> Split:
        return self._decode_records(folders.read_images(folder, names, split, self.classes), split)

    def _decode_records(self, records: Iterable[Record], split: str) -> Split:
        count, title = self._images[split], f"{self.name} {split}"
        return decode_records(records, count, self.image_shape, len(self.classes), title)

    def _check_balance(self, split: Split, title: str, images: int) -> None:
        expected = images // len(self.classes)
        counts = np.bincount(split.labels, minlength=len(self.classes))
        for name, found in zip(self.classes, counts, strict=True):
            if found != expected:
                raise UserError(f"{self.name} {title}: {found} images of {name}, expected {expected}")


class Cifar10(Cifar):
    """CIFAR-10: 10 classes, 5,000 training and 1,000 test images each."""

    name = "cifar10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    torchvision_name = "CIFAR10"
    batch_folder = "cifar-10-batches-py"
    train_batches = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_batches = ("test_batch",)
    batch_labels = "labels"
    label_columns = ("label",)


class Cifar100(Cifar):
    """CIFAR-100: 100 classes (the fine labels), 500 training and 100 test images each."""

    name = "cifar100"
    classes = tuple(_CIFAR100_CLASSES.split())
    torchvision_name = "CIFAR100"
    batch_folder = "cifar-100-python"
    train_batches = ("train",)
    test_batches = ("test",)
    batch_labels = "fine_labels"
    label_columns = ("fine_label", "label")
