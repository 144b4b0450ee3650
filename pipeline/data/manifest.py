"""The manifest of a folder of prepared data or noisy labels: what the data are, and the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, sha256_file
from pipeline.utils.names import checked_name

MANIFEST = "manifest.json"


def checksum_of(files: Mapping[str, str]) -> str:
    """Return the SHA-256 of the lines that `sha256sum` would print for the files, by name."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def has_checksum(path: Path, sha256: str) -> bool:
    """Return whether `path` is a readable file with that SHA-256."""
    try:
        return path.is_file() and sha256_file(path) == sha256
    except OSError:
        return False


def read_manifest(folder: str | Path, stage: str = "plan", needed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the manifest of a folder, without a look at the other files.

    Args:
        folder: of prepared data or noisy labels.
        stage: what makes the folder, for messages: "prepare", "corrupt", or "plan" for `dvc repro plan`.
        needed: keys that must be there, besides `files` and `checksum`.

    Raises:
        UserError: if it is missing, unreadable or damaged. A key that is none of `_FORMS` is not looked at.
    """
    path = Path(folder) / MANIFEST
    command = "`dvc repro plan`" if stage == "plan" else stage
    if not os.path.lexists(path):
        raise UserError(f"{folder}: no {MANIFEST} there; run {command} first")
    try:
        manifest = read_json(path)
        for key in ("files", "checksum", *needed):
            if key not in manifest:
                raise UserError(f"{path}: {key} is missing")
        for key, (form, fits) in _FORMS.items():
            if key in manifest and not fits(manifest[key]):
                raise UserError(f"{path}: {key} = {manifest[key]!r:.80} is not {form}")
        for name in (*manifest["files"], *manifest.get("classes", ())):
            checked_name(name, str(path))
    except UserError as error:
        raise UserError(f"{error}; run {command} again") from None
    if manifest["checksum"] != checksum_of(manifest["files"]):
        raise UserError(f"{path}: files and checksum do not belong together; run {command} again")
    return manifest


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


def _list_of(fits: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and length in (None, len(value)) and all(map(fits, value))


def _map_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _are_classes(value: Any) -> bool:
    return _list_of(lambda name: isinstance(name, str))(value) and 0 < len(set(value)) == len(value)


def _is_share(value: Any) -> bool:
    return type(value) is float and 0 <= value <= 1


_FORMS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "files": ("a SHA-256 for each file", _map_of(_is_sha256)),
    "sizes": ("a size in bytes for each file", _map_of(_is_count)),
    "classes": ("a list of different names", _are_classes),
    "image_shape": ("[height, width, 3]", _list_of(_is_count, 3)),
    **dict.fromkeys(("checksum", "raw_checksum", "base_checksum"), ("a SHA-256", _is_sha256)),
    **dict.fromkeys(("train_images", "test_images", "excluded", "flipped"), ("a count", _is_count)),
    **{key: ("three numbers from 0 to 1", _list_of(_is_share, 3)) for key in ("channel_mean", "channel_std")},
    "matrix": ("a table of counts", _list_of(_list_of(_is_count))),
    "unusual": ("a count for each kind", _map_of(_is_count)),
}
"""What each key of a manifest must be, as text and as a test."""


def intact(folder: Path, about: Mapping[str, Any], verify: Callable[[Path], object]) -> dict[str, Any] | None:
    """Return the manifest of a folder that is intact and was made from the current inputs; None for any other.

    Args:
        folder: of prepared data.
        about: keys and values that the manifest must have.
        verify: raises UserError for damaged files.
    """
    try:
        manifest = read_manifest(folder)
        if any(manifest.get(key) != value for key, value in about.items()):
            return None
        verify(folder)
    except UserError:
        return None
    return manifest
