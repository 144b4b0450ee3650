"""How a file of a run is read: compared with its checksum, then validated against its type.

A finished run has ``checksums.json``, the SHA-256 of each of its files. A folder whose files may still change has none.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from os.path import lexists
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import open_regular, sha256_file, write_json
from pipeline.utils.names import checked_name

CHECKSUMS = "checksums.json"
LARGEST = 64 * 2**20  # bytes of a small file: what is larger is none of ours

T = TypeVar("T")


class DamagedError(UserError):
    """A file of a run that cannot be used.

    Attributes:
        path: the file.
        reason: why, in one line that does not name the file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class NotFiniteError(DamagedError):
    """A file of a run with a number that is not finite: the run has diverged, or the file is damaged."""


def write_checksums(folder: Path, names: Iterable[str], content: Mapping[str, bytes] | None = None) -> None:
    """Write ``checksums.json`` for the named files of a folder.

    Args:
        folder: a run's folder.
        names: files that are there; those that are not are left out.
        content: files that are written afterwards, by name.
    """
    files = {name: sha256_file(folder / name) for name in sorted(names) if (folder / name).is_file()}
    later = {name: hashlib.sha256(data).hexdigest() for name, data in (content or {}).items()}
    write_json(folder / CHECKSUMS, {"files": dict(sorted((files | later).items()))})


def read_checksums(folder: Path) -> dict[str, str] | None:
    """The checksums of a run's files by name; None for a run that was finished before there were checksums.

    Raises:
        DamagedError: if the file is not one of checksums, or names something outside the folder.
    """
    path = folder / CHECKSUMS
    if not lexists(path):
        return None
    content = _json(_bytes(path), path)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise DamagedError(path, "not the checksums of a run")
    return {checked_name(name, f"{path}: files"): value for name, value in files.items()}


def verify(folder: Path, may_lack: str) -> bool:
    """Compare every file that a run has a checksum of; returns whether the run has checksums at all.

    Args:
        folder: the run's folder.
        may_lack: a file that copies of the run are without: nobody can use it by mistake.

    Raises:
        DamagedError: for the first file that is missing or is not the one that was written.
    """
    checksums = read_checksums(folder)
    for name, expected in (checksums or {}).items():
        if name == may_lack and not lexists(folder / name):
            continue
        try:
            found = sha256_file(folder / name)
        except OSError as error:
            raise DamagedError(folder / name, _os_reason(error)) from None
        _compare(folder / name, found, expected)
    return checksums is not None


def read_verified(path: Path) -> bytes:
    """The content of a small file of a run, which is compared with its checksum where there is one.

    Raises:
        DamagedError: if the file is missing, cannot be read, or is not the one that was written.
    """
    data = _bytes(path)
    expected = (read_checksums(path.parent) or {}).get(path.name)
    if expected is not None:
        _compare(path, hashlib.sha256(data).hexdigest(), expected)
    return data


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedError(path, f"damaged: its SHA-256 is {found[:12]}..., in {CHECKSUMS} {expected[:12]}...")


def _bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise DamagedError(path, _os_reason(error)) from None
    if len(data) > LARGEST:
        raise DamagedError(path, f"larger than {LARGEST} bytes")
    return data


def _os_reason(error: OSError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else error.strerror or one_line(error)


def read_record(kind: type[T], path: Path) -> T:
    """A JSON file of a run as a dataclass.

    Raises:
        DamagedError: if the file cannot be read, is not the one that was written, or does not fit the dataclass.
    """
    return parse(kind, _json(read_verified(path), path), path)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file of a run as a dictionary. Raises DamagedError as `read_record` does."""
    content = _json(read_verified(path), path)
    if not isinstance(content, dict):
        raise DamagedError(path, f"holds a JSON {type(content).__name__}, needed is an object")
    return content


def _json(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except OverflowError as error:
        raise NotFiniteError(path, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"not valid JSON ({one_line(error)})") from None


def _refuse(text: str) -> NoReturn:
    raise OverflowError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def parse(kind: type[T], content: Any, path: Path) -> T:
    """A dataclass from the content of a JSON file, its fields checked by pydantic.

    Where pydantic is not installed (a machine that only trains) the fields are taken as they are. Keys that the
    dataclass does not have are ignored.

    Raises:
        DamagedError: for the first key that is missing or has a value of another type.
    """
    _validate(kind, content, path)
    try:
        built: T = _build(kind, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(path, one_line(error)) from None
    return built


def _validate(kind: Any, content: Any, path: Path) -> None:
    try:
        from pydantic import ValidationError
    except ImportError:
        return
    try:
        _adapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise DamagedError(path, f"has no {key}") from None
        message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        value = "" if isinstance(first["input"], dict) else f" = {reprlib.repr(first['input'])}"
        shown = f"{key}{value}: " if key else ""
        raise DamagedError(path, f"{shown}{message[0].lower()}{message[1:]}") from None


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: Any, value: Any) -> Any:
    """A value of JSON as the type of a field: dataclasses, and tuples and dictionaries of them, or None."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in fields(kind) if f.name in value})
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    if get_origin(kind) is dict:
        return {key: _build(arguments[1], item) for key, item in value.items()}
    if type(None) in arguments:
        return None if value is None else _build(arguments[0], value)
    return value
