"""Images in shards: what `prepare` packs and training reads.

A prepared folder holds train-00000.bin ... and val-00000.bin ..., in which the encoded files follow one another, and
train.npy and val.npy, which say for each image where it lies (`INDEX`). `unusual.csv` names those that are CMYK,
greyscale or not of the format in their name, and manifest.json has size and checksum of every file.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import MANIFEST, checksum_of, read_manifest
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import sha256_file

KIND = "photographs"  # as manifests of the first version say
INDEX = np.dtype(
    [("shard", "<i4"), ("label", "<i4"), ("offset", "<i8"), ("length", "<i8"), ("height", "<i4"), ("width", "<i4")]
)
UNUSUAL = "unusual.csv"

# Mean and standard deviation of ImageNet's training pixels, by channel, scaled to [0, 1]: the usual figures.
CHANNEL_MEAN, CHANNEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Shards:
    """The encoded images of one split, by number; read through memory maps, by any number of threads.

    Args:
        index: of type `INDEX` [N].
        bins: paths of the shards.
    """

    def __init__(self, index: NDArray[Any], bins: list[Path]) -> None:
        self.index, self._bins = index, bins
        self.labels: NDArray[np.int64] = index["label"].astype(np.int64)
        self._maps: list[mmap.mmap | None] = [None] * len(bins)

    def __len__(self) -> int:
        return len(self.index)

    def encoded(self, number: int) -> bytes:
        """The file's content."""
        row = self.index[number]
        shard, offset = int(row["shard"]), int(row["offset"])
        opened = self._maps[shard]
        if opened is None:
            with self._bins[shard].open("rb") as file:
                opened = self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return opened[offset : offset + int(row["length"])]

    def place(self, number: int) -> str:
        """Where it lies, for messages."""
        row = self.index[number]
        return f"{self._bins[int(row['shard'])]}: {row['length']} bytes from {row['offset']}"

    def size(self, number: int) -> tuple[int, int]:
        """Height and width in pixels."""
        row = self.index[number]
        return int(row["height"]), int(row["width"])


@dataclass(frozen=True, eq=False)
class ImageShards:
    """A prepared data set of images.

    Attributes:
        train, test: the two splits.
        classes: name of each label.
        checksum: of all files.
        channel_mean, channel_std: of the pixels scaled to [0, 1], for red, green and blue.
    """

    train: Shards
    test: Shards
    classes: tuple[str, ...]
    checksum: str
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]


def has_image_shards(prepared: Path) -> bool:
    """Whether a prepared folder holds images, not arrays; UserError if it holds nothing."""
    return _manifest(prepared).get("kind") == KIND


def _manifest(prepared: Path) -> dict[str, Any]:
    if not (prepared / MANIFEST).is_file():
        raise UserError(f"{prepared}: no {MANIFEST} there; run prepare first")
    return read_manifest(prepared)


def open_image_shards(prepared: Path, *, verify: bool = False) -> ImageShards:
    """Open a prepared folder of images.

    The checksums of the indices are always verified, of the shards only the sizes.

    Args:
        verify: whether to read all shards and verify their checksums, too (ImageNet: 140 GB).

    Raises:
        UserError: for what is missing, damaged or does not belong together.
    """
    manifest = _manifest(prepared)
    if manifest.get("kind") != KIND:
        raise UserError(f"{prepared}: no images but arrays; prepare the data again")
    try:
        files, sizes = manifest["files"], manifest["sizes"]
        if manifest["checksum"] != checksum_of(files) or files.keys() != sizes.keys():
            raise UserError(f"{prepared / MANIFEST}: files and checksum do not belong together; run prepare again")
        for name, size in sizes.items():
            path = prepared / name
            if not path.is_file() or path.stat().st_size != size:
                raise UserError(f"{path}: missing, or not of {size} bytes as in the manifest; run prepare again")
            if (verify or path.suffix != ".bin") and sha256_file(path) != files[name]:
                raise UserError(f"{path}: not the file that the manifest has the checksum of; run prepare again")
        train, test = (_open_split(prepared, split, list(files)) for split in ("train", "val"))
        classes = tuple(manifest["classes"])
        means, deviations = tuple(manifest["channel_mean"]), tuple(manifest["channel_std"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{prepared / MANIFEST}: {error} is missing or wrong; prepare the data again") from None
    for shards, key in ((train, "train_images"), (test, "test_images")):
        if len(shards) != manifest.get(key) or not 0 <= shards.labels.min() <= shards.labels.max() < len(classes):
            raise UserError(f"{prepared}: the index does not fit {key} and classes of the manifest; run prepare again")
    return ImageShards(train, test, classes, str(manifest["checksum"]), means, deviations)


def _open_split(prepared: Path, split: str, names: list[str]) -> Shards:
    path = prepared / f"{split}.npy"
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not an index ({one_line(error)}); run prepare again") from None
    if index.dtype != INDEX or index.ndim != 1 or not len(index):
        raise UserError(f"{path}: not an index of images; run prepare again")
    return Shards(index, [prepared / name for name in sorted(names) if name.startswith(f"{split}-")])
