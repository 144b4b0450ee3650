"""The official CIFAR archives: tar files of pickled batches, neither of which is trusted.

Nothing is extracted to disk, so that paths in the archive have no effect, and the pickles can build nothing but dicts,
lists, numbers, strings and byte arrays.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.utils.errors import UserError, one_line

_EXTRACT = "extract it, and give the folder as the source"
_BEGINNINGS = {
    b"PK\3\4": f"a zip archive; {_EXTRACT}",
    b"7z\xbc\xaf": f"a 7z archive; {_EXTRACT}",
    b"PAR1": "a single Parquet file; give the folder with all of train-*.parquet and test-*.parquet as the source",
    b"\x80": "a single batch; give the folder with all of them, or the archive, as the source",
}
"""What a file is that was taken for a tar archive, and what to do, by its first bytes."""


def read_members(archive: Path, folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of the named regular files below a folder of a tar file; other members are skipped.

    Raises:
        UserError: for a damaged archive, or one that lacks some of the files, which are all named.
    """
    contents = {}
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                if name in names and member.isreg() and (file := tar.extractfile(member)):
                    contents[name] = file.read()
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(f"{archive}: {_mistaken(archive, one_line(error))}") from None
    if missing := [f"{folder}/{name}" for name in names if name not in contents]:
        raise UserError(f"{archive}: has no file {', '.join(missing)}; needed is the archive of the Python version")
    return {name: contents[name] for name in names}


def _mistaken(archive: Path, error: str) -> str:
    """Describe a file that is no tar archive, and say what to do."""
    with contextlib.suppress(OSError), archive.open("rb") as file:
        begin = file.read(4)
        for known, advice in _BEGINNINGS.items():
            if begin.startswith(known):
                return advice
    return f"not a tar archive, or a damaged one ({error}); download the archive of the Python version again"


def read_files(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of the named files of an extracted archive; UserError that names all missing ones."""
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder}: has no file {', '.join(missing)}; extract the archive of the Python version again")
    return {name: (folder / name).read_bytes() for name in names}


def read_batch(pickled: bytes, label_key: str, shape: tuple[int, int, int], classes: int, place: str) -> Split:
    """Decode a batch: `data`, bytes [N, 3 * H * W] in planes of red, green and blue, and a list of N labels.

    Args:
        pickled: the batch.
        label_key: name of the list of labels.
        shape: (H, W, 3).
        classes: number of classes.
        place: names the batch in messages.

    Raises:
        UserError: for any other content.
    """
    height, width, channels = shape
    try:
        batch = _BatchUnpickler(io.BytesIO(pickled), encoding="latin1").load()
        labels = batch[label_key]
        if not isinstance(labels, list) or not all(type(k) is int and 0 <= k < classes for k in labels):
            raise ValueError(f"{label_key} is not a list of integers from 0 to {classes - 1}")
        planes = batch["data"].pixels().reshape(len(labels), channels, height, width)
        return Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64))
    except Exception as error:  # on foreign bytes the unpickler raises exceptions of any type
        raise UserError(f"{place}: not a batch of images ({one_line(error)})") from None


class _Array:
    """Stands in for a pickled NumPy array: holds its parts, so that NumPy runs no code on foreign data."""

    def __init__(self, *_: Any) -> None:
        self.dtype: Any = None
        self.fortran: Any = None
        self.content: Any = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, _shape, self.dtype, self.fortran, self.content = state

    def pixels(self) -> NDArray[np.uint8]:
        """Return the bytes of the array, uint8 [N]."""
        if not isinstance(self.dtype, _Dtype) or self.dtype.code != "u1" or self.fortran:
            raise ValueError("data is not a row-major array of bytes")
        # Python 2 pickled the bytes as its str, which encoding="latin1" turns into characters 0 to 255.
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        return np.frombuffer(content, np.uint8)


class _Dtype:
    """Stands in for a pickled NumPy dtype: holds its code, such as "u1"."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Ignore byte order and fields, which bytes do not have."""


def _from_buffer(content: Any, dtype: Any, _shape: Any, order: str) -> _Array:
    array = _Array()
    array.dtype, array.fortran, array.content = dtype, order == "F", content
    return array


def _encode(text: str, _encoding: str) -> bytes:
    """Return bytes, which protocol 2 as written by Python 3 keeps as text in latin1."""
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            wanted = f"{module}.{name}"
            raise pickle.UnpicklingError(f"it asks for {wanted!r}, which is not allowed")
        return _ALLOWED[module, name]
