"""The data sets: fetched, prepared as arrays or shards of images, and their training labels corrupted.

A new data set is a subclass of `DataSet` (small images, kept as arrays) or of `ImageFolderSet` (encoded images) in
a file of its own, and an entry in `DATASETS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.cifar import Cifar10, Cifar100
from pipeline.data.dataset import DataSet, ImageFolderSet
from pipeline.data.digits import Digits
from pipeline.data.imagenet import ImageNet
from pipeline.data.imagenet_mini import ImageNetMini
from pipeline.data.noise import corrupt_labels
from pipeline.data.packing import PackShards, pack_here, prepare_images
from pipeline.data.preparation import prepare_arrays
from pipeline.data.source import Source, save_source
from pipeline.utils.errors import UserError

__all__ = [
    "DATASETS",
    "DataSet",
    "ImageFolderSet",
    "corrupt",
    "fetch",
    "find_dataset",
    "noisy_folder",
    "prepare",
    "prepared_folder",
    "raw_folder",
]

DATASETS: dict[str, DataSet | ImageFolderSet] = {
    dataset.name: dataset for dataset in (Digits(), Cifar10(), Cifar100(), ImageNet(), ImageNetMini())
}


def find_dataset(name: str) -> DataSet | ImageFolderSet:
    """Return the data set of that name; UserError if it is unknown."""
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is unknown; allowed are {', '.join(DATASETS)}")
    return DATASETS[name]


def fetch(dataset: str, source: str = "official", root: str | Path = "data") -> Source:
    """Download or find the raw data and verify them.

    Args:
        dataset: its name.
        source: "official" (from its publisher) or, for CIFAR and ImageNet, local data, which are not copied.
        root: the data folder.

    Returns:
        The record written to `root`/raw/<dataset>/source.json.
    """
    raw = raw_folder(root, find_dataset(dataset).name)
    record = find_dataset(dataset).fetch(source, raw)
    save_source(record, raw)
    return record


def prepare(dataset: str, root: str | Path = "data", pack_shards: PackShards = pack_here) -> dict[str, Any]:
    """Decode fetched data into the arrays of `root`/prepared/<dataset>/, or check images and pack them there.

    Prepared data that are intact and from the same files are left unchanged.

    Args:
        dataset: its name.
        root: the data folder.
        pack_shards: packs shards of images, on this machine (`pack_here`) or on a Ray cluster
            (`pipeline.launch.ray_pack.pack_over_cluster`).

    Returns:
        The manifest.
    """
    found, raw, prepared = find_dataset(dataset), raw_folder(root, dataset), prepared_folder(root, dataset)
    (Path(root) / "noisy" / dataset).mkdir(parents=True, exist_ok=True)  # DVC's `plan` depends on it, noise or not
    if isinstance(found, ImageFolderSet):
        return prepare_images(found.name, raw, prepared, pack_shards=pack_shards)
    return prepare_arrays(found, raw, prepared)


def corrupt(dataset: str, level: int, root: str | Path = "data", draw: int = 0) -> dict[str, Any]:
    """Write noisy training labels to `root`/noisy/<dataset>/<level>/; return the manifest.

    Args:
        dataset: its name; it must be prepared.
        level: label noise in percent.
        root: the data folder.
        draw: number of the random draw (`data.noise_draw`).
    """
    if isinstance(find_dataset(dataset), ImageFolderSet):
        raise UserError(f"{dataset}: label noise is for data sets of arrays only (paper, Table 5: cifar10)")
    return corrupt_labels(dataset, level, prepared_folder(root, dataset), noisy_folder(root, dataset, level), draw)


def raw_folder(root: str | Path, dataset: str) -> Path:
    """Return the folder that `fetch` writes."""
    return Path(root) / "raw" / dataset


def prepared_folder(root: str | Path, dataset: str) -> Path:
    """Return the folder that `prepare` writes."""
    return Path(root) / "prepared" / dataset


def noisy_folder(root: str | Path, dataset: str, level: int) -> Path:
    """Return the folder that `corrupt` writes for a noise level in percent."""
    return Path(root) / "noisy" / dataset / str(level)
