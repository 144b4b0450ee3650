"""Files and folders that are written atomically: under their final name only when they are complete."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pipeline.utils.errors import UserError
from pipeline.utils.text import spreadsheet_cell


def _sibling(path: Path) -> Path:
    """A name of our own in the folder of `path`: a rename within one folder is atomic."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _prefix(path: Path) -> str:
    """How the temporary names of this host begin; process numbers mean nothing on another one."""
    return f".{path.name}.{socket.gethostname()}-"


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary folders for `path` of processes of this host that were killed."""
    prefix = _prefix(path)
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        number = leftover.name.removeprefix(prefix).partition("-")[0]
        if number.isdecimal() and not _is_running(int(number)):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 is not sent, only its address is checked
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]], *, exact: bool = False) -> str:
    """CSV with LF line ends; None is an empty cell.

    Args:
        header: the names of the columns.
        rows: their cells.
        exact: keep text as it is, for a file that is read back; else no cell is a formula (`spreadsheet_cell`).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows if exact else ([spreadsheet_cell(cell) for cell in row] for row in rows))
    return text.getvalue()


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write a whole file (text as UTF-8), creating its folder; readers see the old content or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends without an error it takes the place of `path`.

    After an error nothing has changed. A folder cannot be replaced in one step: for the moment between two
    renames there is none at `path`. What a killed process left behind is removed.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    fresh = _sibling(path)
    fresh.mkdir()
    try:
        yield fresh
        _swap(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _swap(fresh: Path, path: Path) -> None:
    if not path.exists():
        fresh.replace(path)
        return
    old = _sibling(path)
    path.replace(old)
    try:
        fresh.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; UserError for a file that cannot be read or holds anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:  # a folder, a loop of links, no permission
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a JSON {type(content).__name__}, needed is an object")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON with an indent of 2, keys in their own order; NaN and infinity raise ValueError."""
    try:
        data = json_bytes(value)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be written as JSON ({error})") from None
    write_atomic(path, data)


def json_bytes(value: Any) -> bytes:
    """The content of the file that `write_json` writes."""
    return f"{json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()
