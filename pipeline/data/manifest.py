"""A folder of NumPy arrays with a manifest that has the checksum of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import read_json, replace_folder, sha256_file, write_json

MANIFEST = "manifest.json"


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Put `<name>.npy` for each array and the manifest into `folder`, replacing it whole.

    The manifest is `about`, then `files` (SHA-256 of each file) and `checksum`, a SHA-256 over all of them.
    """
    with replace_folder(folder) as fresh:
        files = {}
        for name, array in arrays.items():
            path = fresh / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            files[path.name] = sha256_file(path)
        manifest = {**about, "checksum": checksum_of(files), "files": files}
        write_json(fresh / MANIFEST, manifest)
    return manifest


def checksum_of(files: Mapping[str, str]) -> str:
    """SHA-256 of the lines that `sha256sum` would print for the files, by name."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of arrays, without a look at the arrays; UserError if there is none."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro plan` makes the data of the profile")
    manifest = read_json(path)
    if not isinstance(manifest.get("files"), dict):
        raise UserError(f"{path}: not the manifest of a folder of arrays")
    return manifest


def intact(folder: Path, key: str, origin: str, verify: Callable[[Path], object]) -> dict[str, Any] | None:
    """The manifest of a folder that is intact and was made from what is there now; None for any other.

    Args:
        key: of the manifest, whose value must be `origin`.
        verify: raises UserError for what is damaged.
    """
    try:
        manifest = read_manifest(folder)
        if manifest.get(key) != origin:
            return None
        verify(folder)
    except UserError:
        return None
    return manifest


def open_arrays(folder: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The manifest and the named arrays, memory-mapped, after their checksums have been verified."""
    manifest = read_manifest(folder)
    files, arrays = manifest["files"], {}
    if sorted(files) != sorted(f"{name}.npy" for name in names) or manifest.get("checksum") != checksum_of(files):
        raise UserError(f"{folder / MANIFEST}: files and checksum do not belong together")
    for name in names:
        path = folder / f"{name}.npy"
        if not path.is_file() or sha256_file(path) != files[path.name]:
            raise UserError(f"{path}: missing, or not the file that the manifest has the checksum of")
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not an array ({one_line(error)})") from None
    return manifest, arrays
