"""Photographs on a node that does not see the folder that `prepare` has packed: brought from `data.remote`, once.

The cache of a node is the folder that RESIDUAL_ATTENTION_CACHE names, by default ~/.cache/residual-attention. A copy
appears there whole or not at all; files of one that was interrupted stay beside it, and the next attempt continues.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipeline.data.manifest import MANIFEST, read_manifest
from pipeline.data.remote import Advance, RemoteFolder, copy_at_once
from pipeline.data.shards import open_image_shards
from pipeline.utils.errors import UserError
from pipeline.utils.files import sha256_file, write_json

CACHE = "RESIDUAL_ATTENTION_CACHE"
ATTEMPTS, REST_SECONDS = 5, 3.0  # to read a file from a store that does not answer
GIB = 2**30

T = TypeVar("T")

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where this node keeps copies."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "residual-attention"


def holds(folder: Path, checksum: str) -> bool:
    """Whether a folder of data is there whose manifest has that checksum, and whose files have the sizes told there."""
    try:
        manifest = read_manifest(folder)
        sizes: dict[str, int] = manifest.get("sizes", {})
        return manifest.get("checksum") == checksum and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (UserError, OSError):
        return False


def photographs_here(prepared: Path, dataset: str, checksum: str, url: str | None) -> Path:
    """Where this node has the prepared photographs of a run: `prepared`, or a copy that is brought into its cache.

    Workers of one node wait for the first of them to bring it.

    Args:
        prepared: where `prepare` has packed them; nothing is brought where they are there.
        dataset, checksum: which photographs.
        url: `data.remote`; None: nothing is brought.

    Raises:
        UserError: if what lies behind the URL is missing or damaged, or finds no room here.
        OSError: if it does not answer for a while, or the copy cannot be written.
    """
    if url is None or holds(prepared, checksum):
        return prepared
    remote = RemoteFolder(url, dataset, checksum)
    copy = cache_folder() / remote.name
    with _locked(copy):
        if not _intact(copy, checksum):
            _bring(remote, copy)
    return copy


@contextmanager
def _locked(copy: Path) -> Iterator[None]:
    """One process at a time; the lock of one that is killed is free."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.with_name(f".{copy.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _intact(copy: Path, checksum: str) -> bool:
    try:
        return open_image_shards(copy).checksum == checksum
    except UserError:
        return False


def _bring(remote: RemoteFolder, copy: Path) -> None:
    manifest = _patiently(remote.manifest)
    partial = copy.with_name(f".{copy.name}.partial")
    if copy.exists():  # it has lost or changed files since: what is good is used again
        shutil.rmtree(partial, ignore_errors=True)
        copy.replace(partial)
    partial.mkdir(exist_ok=True)
    sizes: dict[str, int] = manifest["sizes"]
    missing = sum(size for name, size in sizes.items() if not (partial / name).exists())
    free = shutil.disk_usage(partial).free
    if free < missing:
        raise UserError(
            f"{copy.parent}: {missing / GIB:.1f} GiB of {remote.dataset} find no room in the {free / GIB:.1f} GiB free;"
            f" {CACHE} names another folder"
        )
    logger.warning("%.1f GiB of %s are brought from %s to %s", missing / GIB, remote.dataset, remote.url, copy)
    started = time.monotonic()

    def bring(name: str, advance: Advance) -> None:
        path, checksum = partial / name, manifest["files"][name]
        if not (path.is_file() and sha256_file(path) == checksum):
            _patiently(lambda: _bring_file(remote, path, sizes[name], checksum, advance))

    copy_at_once(bring, sorted(sizes), lambda _: None)
    write_json(partial / MANIFEST, manifest)
    partial.replace(copy)
    logger.warning("%s is there after %.0f s", copy, time.monotonic() - started)


def _patiently(read: Callable[[], T]) -> T:
    """What a store says; it is given some time to answer."""
    for _ in range(ATTEMPTS - 1):
        try:
            return read()
        except OSError:
            time.sleep(REST_SECONDS)
    return read()


def _bring_file(remote: RemoteFolder, path: Path, size: int, checksum: str, advance: Advance) -> None:
    """Bring the file that is to lie at `path`, which it does only if it is what it should be."""
    digest, length, where = hashlib.sha256(), 0, remote.path(path.name)
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as file:
        try:
            for chunk in remote.store.chunks(where):
                file.write(chunk)
                digest.update(chunk)
                length += len(chunk)
                advance(len(chunk))
        except FileNotFoundError:
            raise remote.problem(f"{where} is missing; run prepare again") from None
        file.flush()
        os.fsync(file.fileno())
    if (length, digest.hexdigest()) != (size, checksum):
        unfinished.unlink()
        raise remote.problem(
            f"{where} is damaged ({length} bytes with SHA-256 {digest.hexdigest()[:12]}..., not {size} with"
            f" {checksum[:12]}...); delete it and run prepare again"
        )
    unfinished.replace(path)
