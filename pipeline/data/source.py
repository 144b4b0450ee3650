"""The record of raw data: their files with checksums, verified before the data are used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.manifest import has_checksum
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, real_path, sha256_file, write_json
from pipeline.utils.names import checked_path

RECORD = "source.json"


@dataclass(frozen=True)
class File:
    """Size in bytes and SHA-256 of one raw file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Raw data of one data set; written as `source.json`.

    Attributes:
        dataset: name of the data set.
        kind: how the files are laid out, for example "archive" or "parquet".
        location: absolute path of the folder of the files, or "." for the folder of the record itself.
        files: size and checksum of each file, by its path below `location`.
    """

    dataset: str
    kind: str
    location: str
    files: dict[str, File]

    def folder(self, raw: Path) -> Path:
        """Return the folder of the files, for a record in `raw`."""
        return raw / self.location

    def checksum(self) -> str:
        """Return the SHA-256 of kind, names and contents of the files, without their location."""
        content = {"kind": self.kind, "files": {name: self.files[name].sha256 for name in sorted(self.files)}}
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def local_path(source: str) -> Path:
    """Return the absolute path of a local source, without links."""
    if "\0" in source:
        raise UserError(f"source {source!r}: a path has no NUL character")
    return real_path(os.path.expanduser(source))  # noqa: PTH111 - unlike Path.expanduser it accepts an unknown user


def record_files(folder: Path, names: Iterable[str]) -> dict[str, File]:
    """Return size and checksum of each named file below a folder."""
    return {name: File((folder / name).stat().st_size, sha256_file(folder / name)) for name in names}


def save_source(source: Source, raw: Path) -> None:
    """Write the record into `raw`."""
    write_json(raw / RECORD, asdict(source))


def load_source(dataset: str, raw: Path) -> Source:
    """Return the record in `raw`; UserError if `fetch` has not written one for this data set."""
    path = raw / RECORD
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file; fetch {dataset} first")
    record = read_json(path)
    try:
        files = {
            checked_path(name, str(path)): File(int(file["size"]), str(file["sha256"]))
            for name, file in record["files"].items()
        }
        source = Source(str(record["dataset"]), str(record["kind"]), str(record["location"]), files)
    except UserError as error:
        raise UserError(f"{error}; fetch {dataset} again") from None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise UserError(f"{path}: not a record that fetch wrote; fetch {dataset} again") from None
    if not files:
        raise UserError(f"{path}: records no files; fetch {dataset} again")
    if source.dataset != dataset:
        raise UserError(f"{path}: records {source.dataset!r}, not {dataset!r}; fetch {dataset} again")
    return source


def verify_source(source: Source, raw: Path) -> None:
    """Raise UserError naming the first file that is not as it was when it was fetched."""
    folder = source.folder(raw)
    again = f"since {source.dataset} was fetched; fetch it again"
    for name, known in source.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: the file has gone {again}")
        if (size := path.stat().st_size) != known.size:
            raise UserError(f"{path}: its size has changed from {known.size} to {size} bytes {again}")
        if not has_checksum(path, known.sha256):
            raise UserError(f"{path}: its content has changed {again}")
