"""Sizes of networks, kept from one command to the next: PyTorch takes seconds to start and to count them."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import models
from models import Counts
from pipeline.runs.spec import NetworkSpec
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, write_json

FILE = ".counts.json"


class NetworkCounts:
    """Parameters and multiply-adds of networks, read from a file if the same code has counted them before.

    Args:
        folder: has the file, or will have it if the folder exists. A file that is damaged or of other code is not used.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._code = folder / FILE, _code()
        self._known = _read(self._path, self._code)

    def of(self, network: NetworkSpec, image_size: int) -> Counts:
        """Count a network at square images of that size in pixels.

        Raises:
            ValueError: for an unknown network, a wrong option, or images that are too small for it.
        """
        content = [network.name, network.num_classes, image_size, dict(network.options)]
        key = json.dumps(content, sort_keys=True)
        if key not in self._known:
            from models.counting import count

            self._known[key] = asdict(count(network.name, network.num_classes, image_size, **network.options))
            if self._path.parent.is_dir():
                with suppress(OSError):  # of a folder that cannot be written: they are counted again next time
                    kept = {"code": self._code, "counts": self._known, "sha256": _checksum(self._known)}
                    write_json(self._path, kept)
        return Counts(**self._known[key])


def _read(path: Path, code: str) -> dict[str, dict[str, int]]:
    try:
        content = read_json(path)
    except UserError:
        return {}
    counts = content.get("counts")
    intact = content.get("code") == code and content.get("sha256") == _checksum(counts)
    return counts if intact and isinstance(counts, dict) and all(map(_is_counts, counts.values())) else {}


def _is_counts(value: Any) -> bool:
    names = {field.name for field in fields(Counts)}
    return isinstance(value, dict) and value.keys() == names and all(type(n) is int and n >= 0 for n in value.values())


def _checksum(counts: object) -> str:
    return hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """Return a hash of the networks' code and of the version of PyTorch."""
    files = sorted(Path(models.__file__).parent.glob("*.py"))
    content = b"".join(path.read_bytes() for path in files) + version("torch").encode()
    return hashlib.sha256(content).hexdigest()
