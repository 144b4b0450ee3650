"""Files and folders that are written atomically: under their final name only when they are complete."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from pipeline.utils.errors import UserError, shown
from pipeline.utils.text import spreadsheet_cell

UNFINISHED = ".*.tmp"  # a file that a killed process was writing


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
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = _sibling(path)
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None  # the name that the user knows
        raise


@contextmanager
def replace_folder(path: str | Path, own: Collection[str] = ()) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends without an error it takes the place of `path`.

    After an error nothing has changed. A folder cannot be replaced in one step: for the moment between two
    renames there is none at `path`. What a killed process left behind is removed.

    Args:
        path: the folder.
        own: as in `check_replaceable`, which is asked before and after the block.

    Raises:
        UserError: if what is at `path` must not be replaced.
    """
    check_replaceable(path, own)
    path = real_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    fresh = _sibling(path)
    fresh.mkdir()
    try:
        yield fresh
        check_replaceable(path, own)
        _swap(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def check_replaceable(path: str | Path, own: Collection[str] = (), *, parents: int = 0) -> None:
    """Refuse to replace anything but a folder that holds none but our own files: nothing of the user's is deleted.

    Args:
        path: the folder, which need not exist.
        own: our own files: patterns of their paths in the folder, where "*" also stands for what has a "/".
        parents: how many of the folders above it must not be links, either.

    Raises:
        UserError: for a link, for what is not a folder, and for a folder with a file that fits none of `own`.
    """
    path = Path(path)
    for folder in [*list(path.parents)[:parents][::-1], path]:
        refuse_link(folder)
    for where, folders, files in os.walk(path):
        links = [name for name in folders if Path(where, name).is_symlink()]
        for name in sorted(files + links):
            inner = Path(where, name).relative_to(path).as_posix()
            if not fnmatchcase(name, UNFINISHED) and not any(fnmatchcase(inner, pattern) for pattern in own):
                raise UserError(f"{path}: is not replaced, it has a file that is none of its own: {shown(inner)}")


def refuse_link(folder: Path) -> None:
    """Raise UserError if there is a link in the place of a folder, or anything else that is not a folder."""
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link, so what it leads to is not replaced; put a folder in its place")
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder}: is not a folder, so it is not replaced; move it away")


def real_path(path: str | Path) -> Path:
    """Return the absolute path without links; a loop of links stays in it, where `Path.resolve` would fail."""
    return Path(os.path.realpath(path))


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


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a file to be read; OSError for a pipe or a device, which could keep us waiting or never end."""
    path = Path(path)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder is refused when it is opened
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; UserError for a file that cannot be read or holds anything else."""
    try:
        with open_regular(path) as file:
            content = json.loads(file.read().decode(), parse_constant=_refuse_constant)
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
