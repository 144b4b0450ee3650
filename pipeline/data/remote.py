"""Prepared images behind the URL of `data.remote`, for nodes that do not see the folder that `prepare` has packed.

A folder of images lies in <data.remote>/<data set>-<first 12 digits of its checksum>/. Its manifest is uploaded last: a
folder with a manifest is complete. A node downloads it once into its cache, the folder of RESIDUAL_ATTENTION_CACHE.

DVC's own remote does less: `dvc pull` (3.67) accepts a damaged file with status 0 by default, names none with `verify`,
stores all data twice, needs a DVC repository on every node, and its S3 plug-in an older botocore than boto3 accepts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.data.manifest import MANIFEST, checksum_of, read_manifest
from pipeline.data.progress import BYTES, progress_bar
from pipeline.data.shards import open_image_shards
from pipeline.utils.errors import UserError
from pipeline.utils.files import sha256_file, write_json
from pipeline.utils.object_store import ObjectStore, with_retries

SETTING, CACHE = "data.remote", "RESIDUAL_ATTENTION_CACHE"
PARALLEL_DOWNLOADS = 8
LOCAL, WITH_BUCKET = ("file", "local"), ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
GIB = 2**30

logger = logging.getLogger(__name__)


def check_url(url: str) -> None:
    """Raise ValueError, with what is allowed, for a URL that neither pyarrow nor fsspec can open."""
    import fsspec

    allowed = "must be null or a URL such as s3://bucket/datasets"
    scheme, _, rest = url.partition("://")
    if not rest.strip("/") or any(character.isspace() for character in url):
        raise ValueError(f"{allowed}, not a path; nodes that share the folder of `data/` need none")
    if scheme not in (*WITH_BUCKET, *fsspec.available_protocols()):
        raise ValueError(f"{allowed}; neither pyarrow nor fsspec knows {scheme}://")
    if scheme in WITH_BUCKET and rest.startswith("/"):
        raise ValueError(f"{allowed}; this one names no bucket")
    if scheme in LOCAL and not rest.startswith("/"):
        raise ValueError(f"{allowed}; a path must be absolute, allowed is {scheme}:///{rest}")


@dataclass(frozen=True)
class RemoteFolder:
    """The images of a data set with a certain checksum below the URL of `data.remote`."""

    url: str
    dataset: str
    checksum: str

    @property
    def store(self) -> ObjectStore:
        """The object store of the URL."""
        return ObjectStore(self.url, SETTING)

    @property
    def name(self) -> str:
        """The name of the folder below the URL, and of a copy in a cache."""
        return f"{self.dataset}-{self.checksum[:12]}"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the folder.

        Raises:
            UserError: if there is no complete folder, or the manifest is damaged.
            OSError: if the store does not answer.
        """
        path = f"{self.name}/{MANIFEST}"
        try:
            manifest = json.loads(self.store.read(path))
            files: dict[str, str] = manifest["files"]
            intact = manifest["checksum"] == self.checksum == checksum_of(files)
            if intact and manifest["sizes"].keys() == files.keys() and not any("/" in name for name in files):
                return dict(manifest)
        except FileNotFoundError:
            hint = f"`python -m pipeline prepare {self.dataset}` uploads it, after all other files"
            raise self.store.error(f"{path} is missing; {hint}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise self.store.error(f"{path} is damaged; delete it and run prepare again")

    def check(self) -> None:
        """Raise UserError unless the store answers and has the complete folder."""
        with self.store.required():
            self.manifest()


def upload(prepared: Path, url: str) -> list[str]:
    """Copy a folder of prepared images to below a URL and return the names of the uploaded files, in order.

    A file that is there with the right size is not uploaded again: the folder is named by its content.

    Raises:
        UserError: if the store does not answer. The next call continues with what is missing.
    """
    manifest = read_manifest(prepared)
    remote = RemoteFolder(url, manifest["dataset"], manifest["checksum"])
    sizes: dict[str, int] = {**manifest["sizes"], MANIFEST: (prepared / MANIFEST).stat().st_size}
    with remote.store.required(f"; {prepared} is packed and stays, and the next prepare continues with the upload"):
        present = {name: size for name, (size, _) in remote.store.files(remote.name).items()}
        missing = [name for name in sorted(sizes, key=_manifest_last) if present.get(name) != sizes[name]]
        done = sum(sizes.values()) - sum(sizes[name] for name in missing)
        with progress_bar(f"upload {remote.dataset}", sum(sizes.values()), done=done, unit=BYTES) as advance:
            for name in missing:
                remote.store.upload(prepared / name, f"{remote.name}/{name}", advance)
    return missing


def _manifest_last(name: str) -> tuple[bool, str]:
    return name == MANIFEST, name


def cache_folder() -> Path:
    """Return the folder where this node keeps its copies."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "residual-attention"
    return Path(os.environ.get(CACHE) or default).expanduser().absolute()


def has_data(folder: Path, checksum: str) -> bool:
    """Return whether a folder has a manifest with that checksum, and files of the sizes in the manifest."""
    try:
        manifest = read_manifest(folder)
        sizes: dict[str, int] = manifest.get("sizes", {})
        return manifest.get("checksum") == checksum and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (UserError, OSError):
        return False


def ensure_local(prepared: Path, dataset: str, checksum: str, url: str | None) -> Path:
    """Return a folder of this node with the prepared images of a run, and download it into the cache if necessary.

    Workers of one node wait for the first of them to download it.

    Args:
        prepared: where `prepare` has packed the images; nothing is downloaded if this node has them there.
        dataset: name of the data set.
        checksum: checksum of the images.
        url: `data.remote`; None: nothing is downloaded.

    Raises:
        UserError: if the remote folder is missing or damaged, or does not fit on the disk.
        OSError: if the store does not answer for a while, or the copy cannot be written.
    """
    if url is None or has_data(prepared, checksum):
        return prepared
    remote = RemoteFolder(url, dataset, checksum)
    copy = cache_folder() / remote.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(copy.with_name(f".{copy.name}.lock"), fallback_to_soft=False):
        try:
            intact = open_image_shards(copy).checksum == checksum
        except UserError:
            intact = False
        if not intact:
            _download(remote, copy)
    return copy


def _download(remote: RemoteFolder, copy: Path) -> None:
    """Download a folder: it appears complete or not at all, and an interrupted download continues."""
    manifest = with_retries(remote.manifest)
    sizes: dict[str, int] = manifest["sizes"]
    partial = copy.with_name(f".{copy.name}.partial")
    if copy.exists():  # files were lost or changed since it was downloaded: the good ones are used again
        shutil.rmtree(partial, ignore_errors=True)
        copy.replace(partial)
    partial.mkdir(exist_ok=True)
    missing = sum(size for name, size in sizes.items() if not (partial / name).exists())
    free = shutil.disk_usage(partial).free
    if free < missing:
        what = f"{missing / GIB:.1f} GiB of {remote.dataset} do not fit in the {free / GIB:.1f} GiB free"
        raise UserError(f"{copy.parent}: {what}; {CACHE} names another folder")
    logger.warning("downloading %.1f GiB of %s from %s to %s", missing / GIB, remote.dataset, remote.url, copy)

    def download_file(name: str) -> None:
        path, checksum = partial / name, manifest["files"][name]
        if not (path.is_file() and sha256_file(path) == checksum):
            with_retries(lambda: _download_file(remote, path, checksum))

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        try:
            list(pool.map(download_file, sorted(sizes)))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the files under way are completed: the next attempt needs them
            raise
    write_json(partial / MANIFEST, manifest)
    partial.replace(copy)
    logger.warning("downloaded %s", copy)


def _download_file(remote: RemoteFolder, path: Path, checksum: str) -> None:
    """Download a file to `path`, where it appears only if it has the checksum."""
    where, digest = f"{remote.name}/{path.name}", hashlib.sha256()
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as file:
        try:
            for chunk in remote.store.chunks(where):
                file.write(chunk)
                digest.update(chunk)
        except FileNotFoundError:
            raise remote.store.error(f"{where} is missing; run prepare again") from None
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != checksum:
        found = f"{unfinished.stat().st_size} bytes with SHA-256 {digest.hexdigest()[:12]}..., not {checksum[:12]}..."
        unfinished.unlink()
        raise remote.store.error(f"{where} is damaged ({found}); delete it and run prepare again")
    unfinished.replace(path)
