"""Copies of the runs of an object store: training reads and writes folders, and so does all that looks at runs.

A worker trains in a folder of its own, brought from the store at the start and pushed back while it changes. The driver
has a folder, too, with everything of the runs but their checkpoints.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.runs.execution import STOP_FILE
from pipeline.runs.records import CHECKPOINTS, METRICS, STATE, WEIGHTS
from pipeline.runs.run_store import RunStore, Seen, is_result, is_small, local_files
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.object_store import Stamp

PUSH_SECONDS, PULL_SECONDS = 2.0, 3.0  # between two looks of a worker, and of the driver
ATTEMPTS, REST_SECONDS = 5, 3.0  # of the last copy of a run
AT_ONCE = 16  # runs that are brought from the store
UNLIKE: Stamp = (-1, -1)  # any file

logger = logging.getLogger(__name__)


class _Background:
    """Calls `look` now and then in a thread of its own, whatever the network does meanwhile."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds, self._done = seconds, threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def look(self) -> None:
        """What is to be done; an OSError is told once and tried again."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after a look that has begun."""
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        told = False
        while not self._done.wait(self._seconds):
            try:
                self.look()
                told = False
            except OSError as error:
                if not told:
                    logger.warning("the run store does not answer, trying again: %s", one_line(error))
                told = True


class _WorkingCopy(_Background):
    """A run's folder on a machine that trains it."""

    def __init__(self, store: RunStore, run: str, folder: Path) -> None:
        super().__init__(f"push-{run}", PUSH_SECONDS)
        self._store, self._run, self._folder = store, run, folder
        self._seen: Seen = {}

    def bring(self) -> None:
        """Bring the run from the store, its checkpoints too, except for those that were not pushed to their end."""
        names = self._store.files(self._run)
        torn = {name for name in names if name.startswith(f"{CHECKPOINTS}/") and _state_of(name) not in names}
        self._store.pull(self._run, self._folder, {}, lambda name: name not in torn and name != STOP_FILE)
        self._seen = local_files(self._folder) | dict.fromkeys(torn, UNLIKE)  # the next push deletes the torn ones

    def look(self) -> None:
        """Push what has changed, and learn whether the run is to stop."""
        if self._store.exists(f"{self._run}/{STOP_FILE}"):
            (self._folder / STOP_FILE).touch()
        self._store.push(self._run, self._folder, self._seen)

    def push_the_rest(self) -> None:
        """Push what has changed."""
        _patiently(lambda: self._store.push(self._run, self._folder, self._seen))


def _patiently(copy: Callable[[], None]) -> None:
    """What a run depends on: the store is given some time to answer."""
    for attempt in range(ATTEMPTS):
        try:
            copy()
            return
        except OSError:
            if attempt + 1 == ATTEMPTS:
                raise
            time.sleep(REST_SECONDS)


def _state_of(name: str) -> str:
    return f"{name.rpartition('/')[0]}/{STATE}"


@contextmanager
def working_copy(url: str, run: str) -> Iterator[Path]:
    """A folder of a worker's own to train a run in; what changes there is pushed to the store.

    Raises:
        OSError: if the store does not answer at the start, or at the end.
    """
    with tempfile.TemporaryDirectory(prefix=f"{run}-") as folder:
        copy = _WorkingCopy(RunStore(url), run, Path(folder))
        copy.bring()
        copy.start()
        try:
            yield Path(folder)
        finally:
            copy.stop()
            copy.push_the_rest()


class _Watch(_Background):
    """Brings the small files of one run while it goes on; a request to stop it goes the other way."""

    def __init__(self, store: RunStore, run: str, folder: Path) -> None:
        super().__init__(f"pull-{run}", PULL_SECONDS)
        self._store, self._run, self._folder = store, run, folder
        self._asked = False
        self.seen: Seen = {}

    def look(self) -> None:
        """Bring what has changed."""
        if not self._asked and (self._folder / STOP_FILE).exists():
            self._store.write(f"{self._run}/{STOP_FILE}", b"")
            self._asked = True
        self._store.pull(self._run, self._folder, self.seen, is_small)


@dataclass
class Mirror:
    """The driver's copies of the runs of a store, in a folder."""

    store: RunStore
    folder: Path
    _going: dict[str, _Watch] = field(default_factory=dict)

    def fetch(self, wanted: Callable[[str], bool] = is_small) -> None:
        """Bring the wanted files of every run of the store, unless they are here to the last.

        Raises:
            UserError: if the store does not answer.
        """
        last = [name for name in (METRICS, WEIGHTS) if wanted(name)]
        try:
            runs = {name.partition("/")[0] for name in self.store.files() if "/" in name}
            missing = [run for run in sorted(runs) if not all((self.folder / run / name).exists() for name in last)]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda run: self.store.pull(run, self.folder / run, {}, wanted), missing))
        except OSError as error:
            raise UserError(f"store = {self.store.url!r}: {one_line(error)}") from None

    def follow(self, run: str) -> None:
        """Keep the copy of a run up to date from now on. Asked to stop in its copy, the run is asked in the store."""
        with _told(self.store.url):
            self.store.delete(f"{run}/{STOP_FILE}")
        self._going[run] = _Watch(self.store, run, self.folder / run)
        self._going[run].start()

    def settle(self, run: str) -> bool:
        """The run goes no longer: bring all of it but checkpoints. False where the store does not answer."""
        watch = self._going.pop(run)
        watch.stop()
        seen = dict.fromkeys(watch.seen, UNLIKE)  # all of it again: some stores tell times to the second only
        try:
            _patiently(lambda: self.store.pull(run, self.folder / run, seen, is_result))
        except OSError as error:
            _tell(self.store.url, error)
            return False
        return True

    def push(self, run: str, name: str) -> None:
        """Copy a file of a run that the driver has written to the store."""
        with _told(self.store.url):
            self.store.write(f"{run}/{name}", (self.folder / run / name).read_bytes())

    def add(self, run: str) -> None:
        """Copy a whole run to the store.

        Raises:
            UserError: if the store does not answer.
        """
        try:
            self.store.push(run, self.folder / run, {})
        except OSError as error:
            raise UserError(f"store = {self.store.url!r}: {one_line(error)}") from None


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Go on without a store that does not answer: what is missing is copied when the run is looked at again."""
    try:
        yield
    except OSError as error:
        _tell(url, error)


def _tell(url: str, error: OSError) -> None:
    logger.warning("store = %r does not answer: %s", url, one_line(error))
