"""Access to the files below a URL, such as ``s3://bucket/runs``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.utils.errors import UserError, one_line

WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
CHUNK = 64 * 2**20  # bytes of a large file that are in memory at once
ATTEMPTS, RETRY_SECONDS = 5, 3.0

Stamp = tuple[int, int]  # size of a file in bytes, and its modification time
T = TypeVar("T")


def is_url(store: str) -> bool:
    """Return whether a run store is behind a URL; otherwise it is a folder."""
    return "://" in store


def with_retries(function: Callable[[], T]) -> T:
    """Call a function, up to five times while the object store does not answer (OSError), and return its result."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

    stop, wait = stop_after_attempt(ATTEMPTS), wait_fixed(RETRY_SECONDS)
    return Retrying(retry=retry_if_exception_type(OSError), stop=stop, wait=wait, reraise=True)(function)


@functools.cache
def _open(url: str, setting: str) -> Any:
    """Return the pyarrow file system below a URL; fsspec serves the protocols that pyarrow does not know."""
    from pyarrow import fs

    try:
        try:
            filesystem, path = fs.FileSystem.from_uri(url)
        except (ValueError, NotImplementedError):  # pyarrow's own errors are subclasses of these
            import fsspec

            handler, path = fsspec.core.url_to_fs(url)
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(handler))
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{setting} = {url!r}: {one_line(error)}") from None
    return fs.SubTreeFileSystem(path.rstrip("/"), filesystem)


@dataclass(frozen=True)
class ObjectStore:
    """The files below the URL of a setting. Every method raises OSError if the store does not answer."""

    url: str
    setting: str = "store"

    @property
    def filesystem(self) -> Any:
        """The pyarrow file system whose root is the URL."""
        return _open(self.url, self.setting)

    def error(self, text: str) -> UserError:
        """Return an error that names the setting and the URL."""
        return UserError(f"{self.setting} = {self.url!r}: {text}")

    @contextmanager
    def required(self, hint: str = "") -> Iterator[None]:
        """Turn an OSError of the block into a UserError that names the setting and ends with a hint."""
        try:
            yield
        except OSError as error:
            raise self.error(f"{one_line(error)}{hint}") from None

    def files(self, folder: str) -> dict[str, Stamp]:
        """Return the stamps of all files at any depth of a folder ("" for all), by their path within it."""
        from pyarrow import fs

        found = self.filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
        infos = [info for info in found if info.type == fs.FileType.File]
        return {info.path.removeprefix(f"{folder}/"): (info.size, info.mtime_ns or 0) for info in infos}

    def exists(self, path: str) -> bool:
        """Return whether there is a file at a path."""
        return bool(self.filesystem.get_file_info(path).is_file)

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file of any size, chunk by chunk."""
        with self.filesystem.open_input_stream(path) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return b"".join(self.chunks(path))

    def write(self, path: str, content: bytes) -> None:
        """Write a file; in an object store it appears complete or not at all."""
        with self._output(path) as stream:
            stream.write(content)

    def upload(self, source: Path, path: str, advance: Callable[[int], None]) -> None:
        """Copy a local file of any size; `advance` gets the number of bytes of each chunk, and may raise to stop."""
        try:
            with source.open("rb") as file, self._output(path) as stream:
                while chunk := file.read(CHUNK):
                    stream.write(chunk)  # is sent in parts, several at a time, in the background
                    stream.flush()  # without waiting for them, as in pyarrow's copy_files, memory grows without limit
                    advance(len(chunk))
        except BaseException:
            with suppress(OSError):
                self.delete(path)  # closing a stream makes an object of what has been written so far
            raise

    def _output(self, path: str) -> Any:
        if self.filesystem.base_fs.type_name not in WITHOUT_FOLDERS:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        return self.filesystem.open_output_stream(path)

    def delete(self, path: str) -> None:
        """Delete a file if it exists."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def delete_folder(self, path: str) -> None:
        """Delete a folder and its files if it exists; pyarrow keeps an empty folder as an object."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(path)
