"""A run store behind a URL: the files of runs, to and from folders.

An object appears whole or not at all, but a folder of objects does not. What makes one whole is therefore copied last,
in both directions: ``state.json`` of a checkpoint, ``metrics.json`` of a finished run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.runs.execution import STOP_FILE
from pipeline.runs.records import CHECKPOINTS, METRICS, STATE, WEIGHTS
from pipeline.utils.files import write_atomic
from pipeline.utils.object_store import ObjectStore, Stamp

LAST = (STATE, METRICS)

Seen = dict[str, Stamp]  # files of a run by name, as both sides had them when they were last copied


class RunStore(ObjectStore):
    """The runs that lie below a URL, each in a folder of its name."""

    def reached(self, run: str) -> int:
        """Iteration of a run's newest checkpoint, of those that are whole; -1 without one."""
        folders = (name.rpartition("/") for name in self.files(f"{run}/{CHECKPOINTS}"))
        return max((int(folder) for folder, _, name in folders if name == STATE and folder.isdecimal()), default=-1)

    def pull(self, run: str, folder: Path, seen: Seen, wanted: Callable[[str], bool]) -> None:
        """Bring the wanted files of a run that are new or have changed since they were `seen`; delete what is gone."""
        there = {name: stamp for name, stamp in self.files(run).items() if wanted(name)}
        for name in sorted(there, key=_order):
            if seen.get(name) != there[name]:
                with suppress(FileNotFoundError):  # deleted since the list was made
                    write_atomic(folder / name, self.read(f"{run}/{name}"))
                    seen[name] = there[name]
        for name in seen.keys() - there.keys():
            (folder / name).unlink(missing_ok=True)
            del seen[name]

    def push(self, run: str, folder: Path, seen: Seen) -> None:
        """Copy the files of a run that are new or have changed since they were `seen`; delete what is gone."""
        here = local_files(folder)
        for name in sorted(here, key=_order):
            if seen.get(name) != here[name]:
                with suppress(FileNotFoundError):  # deleted since the list was made
                    self.write(f"{run}/{name}", (folder / name).read_bytes())
                    seen[name] = here[name]
        gone = sorted(seen.keys() - here.keys(), key=_order, reverse=True)
        for name in gone:
            self.delete(f"{run}/{name}")
            del seen[name]
        for empty in {_folder(name) for name in gone} - {_folder(name) for name in seen} - {""}:
            self.delete_folder(f"{run}/{empty}")


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _order(name: str) -> tuple[bool, str]:
    """Sorts what makes a folder whole behind all else."""
    return name.rpartition("/")[2] in LAST, name


def local_files(folder: Path) -> Seen:
    """All files of a run's folder that belong into the store; none that are being written."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts) and name.name != STOP_FILE:
            with suppress(FileNotFoundError):
                if path.is_file():
                    stat = path.stat()
                    found[name.as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return found


def is_small(name: str) -> bool:
    """Whether a file of a run is neither of a checkpoint nor its weights; the request to stop does not count."""
    return is_result(name) and name != WEIGHTS


def is_result(name: str) -> bool:
    """Whether a file of a run is none of a checkpoint."""
    return not name.startswith(f"{CHECKPOINTS}/") and name != STOP_FILE
