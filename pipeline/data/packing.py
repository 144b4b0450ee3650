"""Packing of images into shards; see `pipeline.data.shards` for their layout.

Each file is read once, decoded as a check, and appended unchanged. Finished shards stay in a folder beside the prepared
one until all are there, so that an interrupted packing continues with the next shard. Shards are packed independently,
in any order: here one after the other, on a Ray cluster in parallel (`pipeline.launch.ray_pack`); the prepared folder
is the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.folders import named
from pipeline.data.image_folder import FLAT_KIND, SPLITS, Listed, read_listing
from pipeline.data.images import BrokenImageError, Inspected, inspect
from pipeline.data.manifest import MANIFEST, checksum_of, intact
from pipeline.data.progress import progress_bar
from pipeline.data.shards import CHANNEL_MEAN, CHANNEL_STD, INDEX, KIND, UNUSUAL, open_image_shards
from pipeline.data.source import Source, load_source
from pipeline.utils.cores import available_cores
from pipeline.utils.errors import UserError
from pipeline.utils.files import (
    check_replaceable,
    csv_text,
    read_json,
    replace_folder,
    sha256_file,
    write_atomic,
    write_json,
)

SHARD_BYTES = 2**30
OWN = (MANIFEST, UNUSUAL, *(f"{split}{rest}" for split in SPLITS for rest in (".npy", "-*.bin")))
"""Patterns of the files of a prepared folder."""
UNREADABLE = "unreadable.csv"
_AT_ONCE = 256  # files in memory

Broken = tuple[str, str]
"""A file that cannot be decoded: its path in the tree, and the reason."""
Advance = Callable[[int], None]
"""Called with the number of files that have been read since the last call."""


@dataclass(frozen=True)
class Shard:
    """A shard to be packed: the tree of its files, the folder it is written to, and its files with labels."""

    tree: Path
    folder: Path
    name: str
    index: int
    files: tuple[Listed, ...]
    labels: tuple[int, ...]
    flat: bool = False  # see `Listed.path`

    @property
    def parts(self) -> tuple[Path, Path, Path]:
        """The shard, its index, and the note that is written when both are complete."""
        return tuple(self.folder / f"{self.name}.{suffix}" for suffix in ("bin", "npy", "json"))  # type: ignore[return-value]

    def key(self) -> str:
        """Return a SHA-256 that identifies the files of the shard."""
        return hashlib.sha256(json.dumps([self.files, self.labels]).encode()).hexdigest()


PackShards = Callable[[Sequence[Shard], Advance], list[Broken]]
"""Packs the shards that are not packed yet; returns the broken files of all, in the order of the shards."""


def pack_here(shards: Sequence[Shard], advance: Advance) -> list[Broken]:
    """Pack one shard after the other, with the threads of this machine."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return [broken for shard in shards for broken in pack_unless_packed(shard, pool, advance)]


def prepare_images(
    dataset: str,
    raw: Path,
    prepared: Path,
    shard_bytes: int = SHARD_BYTES,
    pack_shards: PackShards = pack_here,
) -> dict[str, Any]:
    """Check and pack the images that were fetched, unless they are in `prepared` and intact; return the manifest.

    Args:
        dataset: its name.
        raw: folder of the record and the listing.
        prepared: folder for the shards.
        shard_bytes: size at which a shard is full.
        pack_shards: where and how the shards are packed.

    Raises:
        UserError: naming the files that cannot be decoded; all of them are then in ``unreadable.csv`` in `raw`. Also
            if `prepared` must not be replaced.
    """
    source = load_source(dataset, raw)
    listing = read_listing(source, raw)
    if manifest := intact(prepared, {"raw_checksum": source.checksum()}, _verify):
        return manifest
    check_replaceable(prepared, OWN)
    classes = sorted({listed.class_name for listed in listing})
    partial = prepared.with_name(f".{prepared.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for leftover in partial.glob(".*.tmp"):  # of a packing that was interrupted in the middle of a shard
        leftover.unlink(missing_ok=True)
    shards = list(_cut(listing, classes, source, raw, partial, shard_bytes))
    with progress_bar(f"pack {dataset}", sum(len(shard.files) for shard in shards)) as advance:
        broken = pack_shards(shards, advance)
    (raw / UNREADABLE).unlink(missing_ok=True)
    if broken:
        write_atomic(raw / UNREADABLE, csv_text(("name", "reason"), broken))
        shown = named([f"{name} ({reason})" for name, reason in broken])
        raise UserError(
            f"{source.folder(raw)}: {len(broken)} of {len(listing)} images cannot be decoded: {shown};"
            f" replace or remove them and fetch {dataset} again (all of them: {raw / UNREADABLE})"
        )
    used = {split: sum(listed.split == split and listed.used for listed in listing) for split in SPLITS}
    about = {
        "dataset": dataset,
        "kind": KIND,
        "classes": classes,
        "train_images": used["train"],
        "test_images": used["val"],
        "excluded": sum(not listed.used for listed in listing),
        "channel_mean": list(CHANNEL_MEAN),
        "channel_std": list(CHANNEL_STD),
        "raw_checksum": source.checksum(),
    }
    return _assemble(shards, partial, prepared, about)


def _verify(prepared: Path) -> None:
    open_image_shards(prepared, verify=True)


def _cut(
    listing: Sequence[Listed], classes: Sequence[str], source: Source, raw: Path, folder: Path, shard_bytes: int
) -> Iterator[Shard]:
    """Cut each split, in the order of the listing, into shards that are full with about `shard_bytes`."""
    labels = {name: label for label, name in enumerate(classes)}
    for split in SPLITS:
        files: list[Listed] = []
        index = size = 0
        chosen = [listed for listed in listing if listed.split == split and listed.used]
        for position, listed in enumerate(chosen, start=1):
            files.append(listed)
            size += listed.size
            if size >= shard_bytes or position == len(chosen):
                numbers = tuple(labels[file.class_name] for file in files)
                flat = source.kind == FLAT_KIND
                yield Shard(source.folder(raw), folder, f"{split}-{index:05d}", index, tuple(files), numbers, flat)
                files, index, size = [], index + 1, 0


def is_packed(shard: Shard) -> bool:
    """Return whether a shard is complete and made of the same files."""
    binary, index, note = shard.parts
    if not all(path.is_file() for path in shard.parts):
        return False
    try:
        known = read_json(note)
        if known["files"] != shard.key():
            return False
        return bool(known["sha256"] == {path.name: sha256_file(path) for path in (binary, index)})
    except (UserError, KeyError, TypeError):
        return False


def pack_unless_packed(shard: Shard, pool: ThreadPoolExecutor, advance: Advance) -> list[Broken]:
    """Pack a shard, unless it is complete; return the files that cannot be decoded."""
    if not is_packed(shard):
        return pack(shard, pool, advance)
    advance(len(shard.files))
    return []


def pack(shard: Shard, pool: ThreadPoolExecutor, advance: Advance) -> list[Broken]:
    """Write a shard, unless some of its files cannot be decoded; return these, with the reason."""
    binary, index, note = shard.parts
    rows, unusual, broken = [], [], []
    offset = 0
    # In a shared folder a task that was given up may still be writing; it must not share this file.
    unfinished = binary.with_name(f".{binary.name}.{secrets.token_hex(8)}.tmp")
    with unfinished.open("wb") as out:
        read = _read_and_inspect(shard, pool)
        for listed, label, (encoded, found) in zip(shard.files, shard.labels, read, strict=True):
            advance(1)
            if isinstance(found, str):
                broken.append((listed.path(shard.flat), found))
                continue
            out.write(encoded)
            rows.append((shard.index, label, offset, len(encoded), found.height, found.width))
            offset += len(encoded)
            if found.unusual:
                unusual.append((listed.name, found.unusual))
    if broken:
        unfinished.unlink()
        return broken
    unfinished.replace(binary)
    array = io.BytesIO()
    np.save(array, np.array(rows, INDEX), allow_pickle=False)
    write_atomic(index, array.getvalue())
    checksums = {path.name: sha256_file(path) for path in (binary, index)}
    write_json(note, {"files": shard.key(), "sha256": checksums, "unusual": unusual})
    return []


def _read_and_inspect(shard: Shard, pool: ThreadPoolExecutor) -> Iterator[tuple[bytes, Inspected | str]]:
    """Yield content and inspection of each file, or the reason why it is broken; `_AT_ONCE` files at a time."""

    def look(listed: Listed) -> tuple[bytes, Inspected | str]:
        try:
            encoded = (shard.tree / listed.path(shard.flat)).read_bytes()
            if len(encoded) != listed.size:
                return b"", f"{len(encoded)} bytes, it had {listed.size} when it was fetched"
            return encoded, inspect(encoded, listed.name)
        except FileNotFoundError:
            return b"", "it is gone since it was fetched"
        except BrokenImageError as error:
            return b"", str(error)

    for start in range(0, len(shard.files), _AT_ONCE):
        yield from pool.map(look, shard.files[start : start + _AT_ONCE])


def _assemble(shards: Sequence[Shard], partial: Path, prepared: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Replace `prepared` by the finished shards, with one index for each split and the manifest."""
    unusual: list[tuple[str, str]] = []
    files: dict[str, str] = {}
    with replace_folder(prepared, OWN) as fresh:
        for split in SPLITS:
            parts = [shard for shard in shards if shard.name.startswith(f"{split}-")]
            np.save(fresh / f"{split}.npy", np.concatenate([np.load(shard.parts[1]) for shard in parts]))
        for shard in shards:
            known = read_json(shard.parts[2])
            unusual += [(name, kind) for name, kind in known["unusual"]]
            files[shard.parts[0].name] = known["sha256"][shard.parts[0].name]
        write_atomic(fresh / UNUSUAL, csv_text(("name", "kind"), unusual))
        files |= {path.name: sha256_file(path) for path in sorted(fresh.iterdir())}
        sizes = {path.name: path.stat().st_size for path in fresh.iterdir()}
        for shard in shards:  # renamed, not copied, and last: ImageNet has 140 GB
            sizes[shard.parts[0].name] = shard.parts[0].stat().st_size
            shard.parts[0].replace(fresh / shard.parts[0].name)
        kinds = [kind for _, kind in unusual]
        manifest = {
            **about,
            "unusual": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "sizes": {name: sizes[name] for name in sorted(files)},
            "checksum": checksum_of(files),
            "files": {name: files[name] for name in sorted(files)},
        }
        write_json(fresh / MANIFEST, manifest)
    shutil.rmtree(partial)
    return manifest
