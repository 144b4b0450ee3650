"""Runs behind a URL, and the local copies of them that training, the driver and the report work with.

Ray Train's `storage_path` stays local: Ray Train 2.60 ends a run when the store does not answer once (ControllerError),
and it stores checkpoints of runs under Ray alone: no history, no progress, nothing of `train --in-process`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.runs.execution import STOP_FILE
from pipeline.runs.reading import CHECKSUMS
from pipeline.runs.records import CHECKPOINTS, METRICS, STATE, WEIGHTS
from pipeline.utils.errors import one_line
from pipeline.utils.files import write_atomic
from pipeline.utils.object_store import ObjectStore, Stamp, with_retries
from pipeline.utils.threads import repeated

PUSH_SECONDS, PULL_SECONDS = 2.0, 3.0  # between two uploads of a worker, and two downloads of the driver
PARALLEL_DOWNLOADS = 16
CHANGED: Stamp = (-1, -1)  # differs from the stamp of every file

Seen = dict[str, Stamp]  # stamps of a run's files at the source when they were last copied

logger = logging.getLogger(__name__)


class RunStore(ObjectStore):
    """The runs below a URL, each in a folder of its name."""

    def newest_checkpoint(self, run: str) -> int:
        """Return the iteration of a run's newest complete checkpoint; -1 without one."""
        folders = (name.rpartition("/") for name in self.files(f"{run}/{CHECKPOINTS}"))
        return max((int(folder) for folder, _, name in folders if name == STATE and folder.isdecimal()), default=-1)

    def pull(self, run: str, folder: Path, seen: Seen, wanted: Callable[[str], bool]) -> None:
        """Download the wanted files of a run that changed since they were `seen`; delete what is gone."""
        _copy_changes(
            {name: stamp for name, stamp in self.files(run).items() if wanted(name)},
            seen,
            copy=lambda name: write_atomic(folder / name, self.read(f"{run}/{name}")),
            delete=lambda name: (folder / name).unlink(missing_ok=True),
        )

    def push(self, run: str, folder: Path, seen: Seen) -> None:
        """Upload the files of a run that changed since they were `seen`; delete what is gone."""
        before = {_folder(name) for name in seen}
        _copy_changes(
            local_files(folder),
            seen,
            copy=lambda name: self.write(f"{run}/{name}", (folder / name).read_bytes()),
            delete=lambda name: self.delete(f"{run}/{name}"),
        )
        for empty in before - {_folder(name) for name in seen} - {""}:
            self.delete_folder(f"{run}/{empty}")


def _copy_changes(
    found: Mapping[str, Stamp], seen: Seen, copy: Callable[[str], None], delete: Callable[[str], None]
) -> None:
    """Copy the files that changed since they were `seen`, delete those no longer `found`, and update `seen`."""

    def order(name: str) -> tuple[bool, str]:
        # A file appears complete or not at all, but a folder does not. The file that marks a checkpoint or a finished
        # run as complete is therefore copied last and deleted first: a killed copy never looks complete. (Checksums
        # come before the metrics by name, and after the files that they are of.)
        return name.rpartition("/")[2] in (STATE, CHECKSUMS, METRICS), name

    for name in sorted(found, key=order):
        if seen.get(name) != found[name]:
            with suppress(FileNotFoundError):  # deleted since it was listed
                copy(name)
                seen[name] = found[name]
    for name in sorted(seen.keys() - found.keys(), key=order, reverse=True):
        delete(name)
        del seen[name]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def local_files(folder: Path) -> Seen:
    """Return the stamps of the files of a run that belong in the store; temporary files do not."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts) and name.name != STOP_FILE:
            with suppress(FileNotFoundError):
                if path.is_file():
                    stat = path.stat()
                    found[name.as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return found


def is_result(name: str) -> bool:
    """Return whether a file of a run is a result: neither part of a checkpoint nor the request to stop."""
    return not name.startswith(f"{CHECKPOINTS}/") and name != STOP_FILE


def is_small(name: str) -> bool:
    """Return whether a file of a run is a result other than the weights."""
    return is_result(name) and name != WEIGHTS


@contextmanager
def _repeated(transfer: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call a function every few seconds while the block runs, so that a slow network delays nobody."""
    failed = False

    def attempt() -> None:
        nonlocal failed
        try:
            transfer()
            failed = False
        except OSError as error:
            if not failed:  # one warning for each outage
                logger.warning("the run store does not answer, trying again: %s", one_line(error))
            failed = True

    with repeated(attempt, seconds, "run-store"):
        yield


@contextmanager
def working_copy(url: str, run: str) -> Iterator[Path]:
    """Give a worker a temporary folder with the run's files; what changes there is uploaded to the store.

    Raises:
        OSError: if the store does not answer at the start or at the end.
    """
    store = RunStore(url)
    with tempfile.TemporaryDirectory(prefix=f"{run}-") as temporary:
        folder, names = Path(temporary), store.files(run)
        incomplete = {
            name for name in names if name.startswith(f"{CHECKPOINTS}/") and f"{_folder(name)}/{STATE}" not in names
        }
        store.pull(run, folder, {}, lambda name: name not in incomplete and name != STOP_FILE)
        seen = local_files(folder) | dict.fromkeys(incomplete, CHANGED)  # the first push deletes what is incomplete

        def push() -> None:
            if store.exists(f"{run}/{STOP_FILE}"):
                (folder / STOP_FILE).touch()
            store.push(run, folder, seen)

        try:
            with _repeated(push, PUSH_SECONDS):
                yield folder
        finally:
            with_retries(lambda: store.push(run, folder, seen))


@dataclass
class Mirror:
    """The driver's copies of the runs of a store, without their checkpoints, in a local folder."""

    store: RunStore
    folder: Path
    _followed: dict[str, tuple[ExitStack, Seen]] = field(default_factory=dict)

    def fetch(self, wanted: Callable[[str], bool] = is_small) -> None:
        """Download the wanted files of every run whose copy is not complete; UserError if the store does not answer."""
        last = [name for name in (METRICS, WEIGHTS) if wanted(name)]
        with self.store.required(), ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            runs = {name.partition("/")[0] for name in self.store.files("") if "/" in name}
            missing = [run for run in sorted(runs) if not all((self.folder / run / name).exists() for name in last)]
            list(pool.map(lambda run: self.store.pull(run, self.folder / run, {}, wanted), missing))

    def update(self, run: str) -> None:
        """Download the results of a run, without its weights, if the store answers."""
        with self._best_effort():
            self.store.pull(run, self.folder / run, {}, is_small)

    def follow(self, run: str) -> None:
        """Keep the copy of a run up to date from now on, and pass on a request to stop that is made in the copy."""
        folder, seen, stack = self.folder / run, Seen(), ExitStack()

        def pull() -> None:
            if (folder / STOP_FILE).exists():
                self.store.write(f"{run}/{STOP_FILE}", b"")
            self.store.pull(run, folder, seen, is_small)

        with self._best_effort():
            self.store.delete(f"{run}/{STOP_FILE}")
        stack.enter_context(_repeated(pull, PULL_SECONDS))
        self._followed[run] = stack, seen

    def finish(self, run: str) -> None:
        """Stop following a run and download all of its results; UserError if the store does not answer."""
        stack, seen = self._followed.pop(run)
        stack.close()
        everything = dict.fromkeys(seen, CHANGED)  # stamps are not enough: some stores round times to seconds
        with self.store.required("; it does not say how the run ended; the same command looks again"):
            with_retries(lambda: self.store.pull(run, self.folder / run, everything, is_result))

    def push(self, run: str, name: str) -> None:
        """Upload a file of a run that the driver has written; nothing is lost if the store does not answer."""
        with self._best_effort():
            self.store.write(f"{run}/{name}", (self.folder / run / name).read_bytes())

    def add(self, run: str) -> None:
        """Upload a complete run; UserError if the store does not answer."""
        with self.store.required():
            self.store.push(run, self.folder / run, {})

    @contextmanager
    def _best_effort(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning("store = %r does not answer: %s", self.store.url, one_line(error))
