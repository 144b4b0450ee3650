"""A store behind a URL, such as ``s3://bucket/runs``: copying the files of runs, or large ones, to and from it.

An object appears whole or not at all, but a folder of objects does not. What makes one whole is therefore copied last,
in both directions: ``state.json`` of a checkpoint, ``metrics.json`` of a finished run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, one_line
from pipeline.files import write_atomic
from pipeline.training.execution import STOP
from pipeline.training.records import CHECKPOINTS, METRICS, STATE, WEIGHTS

LAST = (STATE, METRICS)
WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
CHUNK = 16 * 2**20  # bytes of a large file that are in memory at once

Stamp = tuple[int, int]  # size of a file in bytes, and when it was changed
Seen = dict[str, Stamp]  # files of a run by name, as both sides had them when they were last copied


def is_url(store: str) -> bool:
    """Whether a run store is behind a URL; else it is a folder."""
    return "://" in store


@functools.cache
def _open(url: str, setting: str = "store") -> tuple[Any, str]:
    """File system and path of a URL: by pyarrow, or for what that does not know, by fsspec."""
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(url)
    except (ValueError, NotImplementedError):  # pyarrow's own errors are among them
        try:
            import fsspec

            handler, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{setting} = {url!r}: {one_line(error)}") from None
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(handler))
    except OSError as error:
        raise UserError(f"{setting} = {url!r}: {one_line(error)}") from None
    return filesystem, path.rstrip("/")


@dataclass(frozen=True)
class ObjectStore:
    """What lies below a URL. Where the store does not answer, every method raises OSError.

    Attributes:
        url: as the user has written it.
        setting: its key, for messages.
    """

    url: str
    setting: str = "store"

    def files(self, folder: str = "") -> Seen:
        """All files below a folder of the store, by their path within it."""
        from pyarrow import fs

        filesystem, base = self._opened()
        top = f"{base}/{folder}".rstrip("/")
        found = filesystem.get_file_info(fs.FileSelector(top, allow_not_found=True, recursive=True))
        return {
            info.path.removeprefix(f"{top}/"): (info.size, info.mtime_ns or 0)
            for info in found
            if info.type == fs.FileType.File
        }

    def reached(self, run: str) -> int:
        """Iteration of a run's newest checkpoint, of those that are whole; -1 without one."""
        folders = (name.rpartition("/") for name in self.files(f"{run}/{CHECKPOINTS}"))
        return max((int(folder) for folder, _, name in folders if name == STATE and folder.isdecimal()), default=-1)

    def exists(self, path: str) -> bool:
        """Whether there is a file."""
        filesystem, base = self._opened()
        return bool(filesystem.get_file_info(f"{base}/{path}").is_file)

    def read(self, path: str) -> bytes:
        """Content of a file."""
        filesystem, base = self._opened()
        with filesystem.open_input_stream(f"{base}/{path}") as stream:
            return bytes(stream.read())

    def write(self, path: str, content: bytes) -> None:
        """Write a file; it appears whole or not at all where the store promises that, as object stores do."""
        with self._output(path) as stream:
            stream.write(content)

    def send(self, source: Path, path: str, advance: Callable[[int], None]) -> None:
        """Copy a local file of any size; `advance` is told of the bytes, chunk by chunk."""
        try:
            with source.open("rb") as file, self._output(path) as stream:
                while chunk := file.read(CHUNK):
                    stream.write(chunk)
                    stream.flush()  # writing goes on in the background: without a wait all of it were soon in memory
                    advance(len(chunk))
        except BaseException:
            with suppress(OSError):
                self.delete(path)  # to close a stream is to make an object of what was written so far
            raise

    def chunks(self, path: str) -> Iterator[bytes]:
        """Content of a file of any size, part by part."""
        filesystem, base = self._opened()
        with filesystem.open_input_stream(f"{base}/{path}") as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def _opened(self) -> tuple[Any, str]:
        return _open(self.url, self.setting)

    def _output(self, path: str) -> Any:
        filesystem, base = self._opened()
        if filesystem.type_name not in WITHOUT_FOLDERS:
            filesystem.create_dir(f"{base}/{path}".rpartition("/")[0], recursive=True)
        return filesystem.open_output_stream(f"{base}/{path}")

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        filesystem, base = self._opened()
        with suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{path}")

    def delete_folder(self, path: str) -> None:
        """Delete a folder and what is in it, if it is there: pyarrow keeps empty ones by an object of their own."""
        filesystem, base = self._opened()
        with suppress(FileNotFoundError):
            filesystem.delete_dir(f"{base}/{path}")

    def pull(self, run: str, folder: Path, seen: Seen, wanted: Callable[[str], bool]) -> None:
        """Bring the wanted files of a run that are new or have changed since they were `seen`; delete what is gone."""
        there = {name: stamp for name, stamp in self.files(run).items() if wanted(name)}
        for name in sorted(there, key=_order):
            if seen.get(name) != there[name]:
                with suppress(FileNotFoundError):  # deleted since the list was made
                    write_atomic(folder / name, self.read(f"{run}/{name}"))
                    seen[name] = there[name]
        for name in seen.keys() - there.keys():
            (folder / name).unlink(missing_ok=True)
            del seen[name]

    def push(self, run: str, folder: Path, seen: Seen) -> None:
        """Copy the files of a run that are new or have changed since they were `seen`; delete what is gone."""
        here = local_files(folder)
        for name in sorted(here, key=_order):
            if seen.get(name) != here[name]:
                with suppress(FileNotFoundError):  # deleted since the list was made
                    self.write(f"{run}/{name}", (folder / name).read_bytes())
                    seen[name] = here[name]
        gone = sorted(seen.keys() - here.keys(), key=_order, reverse=True)
        for name in gone:
            self.delete(f"{run}/{name}")
            del seen[name]
        for empty in {_folder(name) for name in gone} - {_folder(name) for name in seen} - {""}:
            self.delete_folder(f"{run}/{empty}")


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _order(name: str) -> tuple[bool, str]:
    """Sorts what makes a folder whole behind all else."""
    return name.rpartition("/")[2] in LAST, name


def local_files(folder: Path) -> Seen:
    """All files of a run's folder that belong into the store; none that are being written."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts) and name.name != STOP:
            with suppress(FileNotFoundError):
                if path.is_file():
                    stat = path.stat()
                    found[name.as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return found


def is_small(name: str) -> bool:
    """Whether a file of a run is neither of a checkpoint nor its weights; the request to stop does not count."""
    return is_result(name) and name != WEIGHTS


def is_result(name: str) -> bool:
    """Whether a file of a run is none of a checkpoint."""
    return not name.startswith(f"{CHECKPOINTS}/") and name != STOP
