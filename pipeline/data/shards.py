"""Images in shards: what `prepare` packs and training reads.

A prepared folder holds train-00000.bin ... and val-00000.bin ..., in which the encoded files follow one another, and
train.npy and val.npy, which locate each image (`INDEX`). `unusual.csv` names those that are CMYK,
greyscale or not of the format in their name, and manifest.json has size and checksum of every file.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import MANIFEST, has_checksum, read_manifest
from pipeline.utils.errors import UserError, one_line

KIND = "photographs"  # the format of manifests keeps its first word for such images
INDEX = np.dtype(
    [("shard", "<i4"), ("label", "<i4"), ("offset", "<i8"), ("length", "<i8"), ("height", "<i4"), ("width", "<i4")]
)
UNUSUAL = "unusual.csv"
_NEEDED = ("kind", "sizes", "classes", "train_images", "test_images", "channel_mean", "channel_std")

# Mean and standard deviation of ImageNet's training pixels, by channel, scaled to [0, 1]: the usual figures.
CHANNEL_MEAN, CHANNEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Shards:
    """The encoded images of one split, by index; read through memory maps, by any number of threads.

    Args:
        rows: of type `INDEX` [N].
        bins: paths of the shards.
    """

    def __init__(self, rows: NDArray[Any], bins: list[Path]) -> None:
        self.rows, self._bins = rows, bins
        self.labels: NDArray[np.int64] = rows["label"].astype(np.int64)
        self._maps: list[mmap.mmap | None] = [None] * len(bins)

    def __len__(self) -> int:
        return len(self.rows)

    def encoded(self, index: int) -> bytes:
        """Return the content of the file of an image."""
        row = self.rows[index]
        shard, offset = int(row["shard"]), int(row["offset"])
        opened = self._maps[shard]
        if opened is None:
            with self._bins[shard].open("rb") as file:
                opened = self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return opened[offset : offset + int(row["length"])]

    def place(self, index: int) -> str:
        """Return where an image is stored, for messages."""
        row = self.rows[index]
        return f"{self._bins[int(row['shard'])]}: {row['length']} bytes from {row['offset']}"

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of an image in pixels."""
        row = self.rows[index]
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
    """Return whether a prepared folder has shards of images, not arrays; UserError if it has no manifest."""
    return read_manifest(prepared, "prepare").get("kind") == KIND


def open_image_shards(prepared: Path, *, verify: bool = False) -> ImageShards:
    """Open a prepared folder of images.

    The checksums of the indices are always verified, of the shards only the sizes.

    Args:
        prepared: the folder.
        verify: whether to read all shards and verify their checksums, too (ImageNet: 140 GB).

    Raises:
        UserError: for files that are missing, unreadable, damaged, or do not belong together.
    """
    manifest = read_manifest(prepared, "prepare", _NEEDED)
    files, sizes, classes = manifest["files"], manifest["sizes"], tuple(manifest["classes"])
    if manifest["kind"] != KIND or files.keys() != sizes.keys():
        raise UserError(f"{prepared / MANIFEST}: not the manifest of shards of images; run prepare again")
    for name, size in sizes.items():
        path = prepared / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path}: missing, or not of {size} bytes as in the manifest; run prepare again")
        if (verify or path.suffix != ".bin") and not has_checksum(path, files[name]):
            raise UserError(f"{path}: unreadable, or without the checksum in the manifest; run prepare again")
    train, test = (_open_split(prepared, split, list(files)) for split in ("train", "val"))
    for shards, key in ((train, "train_images"), (test, "test_images")):
        if len(shards) != manifest[key] or not 0 <= shards.labels.min() <= shards.labels.max() < len(classes):
            raise UserError(f"{prepared}: the index does not fit {key} and classes of the manifest; run prepare again")
    for key, known in (("channel_mean", CHANNEL_MEAN), ("channel_std", CHANNEL_STD)):
        if manifest[key] != list(known):
            raise UserError(f"{prepared / MANIFEST}: {key} is not {list(known)}; run prepare again")
    return ImageShards(train, test, classes, manifest["checksum"], CHANNEL_MEAN, CHANNEL_STD)


def _open_split(prepared: Path, split: str, names: list[str]) -> Shards:
    path = prepared / f"{split}.npy"
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(f"{path}: not an index ({one_line(error)}); run prepare again") from None
    if index.dtype != INDEX or index.ndim != 1 or not len(index):
        raise UserError(f"{path}: not an index of images; run prepare again")
    return Shards(index, [prepared / name for name in sorted(names) if name.startswith(f"{split}-")])
