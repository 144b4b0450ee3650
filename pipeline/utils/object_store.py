"""What lies behind a URL, such as ``s3://bucket/runs``: its files are listed, read, written, copied and deleted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.utils.errors import UserError, one_line

WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
CHUNK = 16 * 2**20  # bytes of a large file that are in memory at once

Stamp = tuple[int, int]  # size of a file in bytes, and when it was changed


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

    def files(self, folder: str = "") -> dict[str, Stamp]:
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
