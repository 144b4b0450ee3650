"""A prepared folder of photographs in an object store, for nodes that do not see the one that `prepare` has packed.

It lies in a folder that is named by its content, <data.remote>/<data set>-<first 12 digits of its checksum>/. Its
manifest comes last: it makes the folder whole. `pipeline.data.node_cache` brings it from there to where it is needed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.manifest import MANIFEST, checksum_of, read_manifest
from pipeline.data.progress import BYTES, progress_bar
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.object_store import ObjectStore

SETTING = "data.remote"
AT_ONCE = 8  # files that are copied at the same time
LOCAL, WITH_BUCKET = ("file", "local"), ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")

Advance = Callable[[int], None]
"""Told of how many bytes more have been copied."""


def check_url(url: str) -> None:
    """Raise ValueError, with what is allowed, for what is no URL of a place that can be opened."""
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
    """A prepared folder below the URL of `data.remote`."""

    url: str
    dataset: str
    checksum: str

    @property
    def store(self) -> ObjectStore:
        """What its files are read from and written to."""
        return ObjectStore(self.url, SETTING)

    @property
    def name(self) -> str:
        """Of the folder below the URL, and of a copy."""
        return f"{self.dataset}-{self.checksum[:12]}"

    def path(self, name: str) -> str:
        """Of one of its files below the URL."""
        return f"{self.name}/{name}"

    def problem(self, text: str) -> UserError:
        """An error that names the setting."""
        return UserError(f"{SETTING} = {self.url!r}: {text}")

    def manifest(self) -> dict[str, Any]:
        """What the folder holds.

        Raises:
            UserError: if there is no whole folder, or its manifest is damaged.
            OSError: if the store does not answer.
        """
        path = self.path(MANIFEST)
        try:
            manifest = json.loads(self.store.read(path))
            if (
                manifest["checksum"] == self.checksum == checksum_of(manifest["files"])
                and manifest["sizes"].keys() == manifest["files"].keys()
            ):
                return dict(manifest)
        except FileNotFoundError:
            raise self.problem(
                f"{path} is missing; `python -m pipeline prepare {self.dataset}` puts it there, last of all"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise self.problem(f"{path} is damaged; delete it and run prepare again")

    def check(self) -> None:
        """Raise UserError unless the store answers and has the whole folder."""
        try:
            self.manifest()
        except OSError as error:
            raise self.problem(one_line(error)) from None


def upload(prepared: Path, url: str) -> list[str]:
    """Copy a prepared folder of photographs to below a URL, from this machine, several files at once.

    A file that is there with the right size is not sent again: the folder is named by its content.

    Returns:
        names of the files that were sent, in order; none where all of them were there.

    Raises:
        UserError: if the store does not answer. The next call continues with what is missing.
    """
    manifest = read_manifest(prepared)
    remote = RemoteFolder(url, manifest["dataset"], manifest["checksum"])
    sizes: dict[str, int] = {**manifest["sizes"], MANIFEST: (prepared / MANIFEST).stat().st_size}
    store = remote.store

    def send(name: str, advance: Advance) -> None:
        store.send(prepared / name, remote.path(name), advance)

    try:
        there = {name: size for name, (size, _) in store.files(remote.name).items()}
        stages = _stages(name for name in sizes if there.get(name) != sizes[name])
        missing = [name for stage in stages for name in stage]
        done = sum(sizes.values()) - sum(sizes[name] for name in missing)
        with progress_bar(f"upload {remote.dataset}", sum(sizes.values()), done=done, unit=BYTES) as advance:
            for stage in stages:
                copy_at_once(send, stage, advance)
    except OSError as error:
        raise remote.problem(
            f"{one_line(error)}; {prepared} is packed and stays, and the next prepare continues with the upload"
        ) from None
    return missing


def _stages(names: Iterable[str]) -> list[list[str]]:
    """Files in the order in which they make a folder: the shards, what tells about them, the manifest."""
    stages: list[list[str]] = [[], [], []]
    for name in sorted(names):
        stages[2 if name == MANIFEST else int(not name.endswith(".bin"))].append(name)
    return stages


class _StoppedError(Exception):
    """Another file could not be copied."""


def copy_at_once(copy: Callable[[str, Advance], None], names: Iterable[str], advance: Advance) -> None:
    """Copy files by threads. After an error or Ctrl-C those that are under way stop with their next chunk."""
    stopped = threading.Event()

    def advance_or_stop(amount: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        advance(amount)

    def copy_or_stop(name: str) -> None:
        advance_or_stop(0)
        try:
            copy(name, advance_or_stop)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="copy") as pool:
        tasks = [pool.submit(copy_or_stop, name) for name in names]
        try:
            for task in as_completed(tasks):
                with suppress(_StoppedError):  # what has stopped it is raised by another one
                    task.result()
        finally:
            stopped.set()
