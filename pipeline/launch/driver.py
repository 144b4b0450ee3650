"""What the driver does around a run, for `train` and `launch`: its folder, its entry in MLflow, and its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import runs
from pipeline.data import noisy_folder, prepared_folder
from pipeline.runs.execution import STOP_FILE, Execution, Resources
from pipeline.runs.records import CONFIG, METRICS, PROGRESS, PROVENANCE, Provenance
from pipeline.runs.run_lock import lock_run
from pipeline.runs.run_store import Mirror, RunStore, is_result, is_small
from pipeline.runs.spec import RunSpec
from pipeline.runs.store import SEARCHES
from pipeline.settings.plan import Plan
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import write_json
from pipeline.utils.git import Origin, origin
from pipeline.utils.object_store import is_url

if TYPE_CHECKING:
    from pipeline.tracking import Follower
    from pipeline.tracking.parents import Status

logger = logging.getLogger(__name__)


@dataclass
class Driver:
    """The driver of the runs of one plan.

    Attributes:
        plan: the plan of the profile.
        root: the project folder; workers get absolute paths below it.
        stop_after: seconds from now after which everything is paused.
        max_parallel: how many runs go at once, at most, where the plan is not to decide.
        search: folder name of the search whose trials the runs are.
        store: the folder of the run store, or of its copies where it is behind a URL; of a search, its own folder.
        mirror: keeps those copies.
    """

    plan: Plan
    root: Path
    stop_after: float | None = None
    max_parallel: int | None = None
    search: str | None = None
    data: Path = field(init=False)
    store: Path = field(init=False)
    resources: Resources = field(init=False)
    origin: Origin = field(init=False)
    uri: str | None = field(init=False, default=None)
    follower: Follower | None = field(init=False, default=None)
    parent: str | None = field(init=False, default=None)
    mirror: Mirror | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.data = self.root / "data"
        self.store = runs.store_folder(self.plan.store, self.root)
        if self.search:  # a search is always in a local folder
            self.store = self.store / SEARCHES / self.search
        elif is_url(self.plan.store):
            self.mirror = Mirror(RunStore(self.plan.store), self.store)
        self.resources = self.plan.resources
        if self.max_parallel:
            self.resources = replace(self.resources, max_parallel=self.max_parallel)
        self.origin = origin(self.root)
        self._held: dict[Path, AbstractContextManager[object]] = {}
        self._stop_at = None if self.stop_after is None else time.time() + self.stop_after

    @property
    def out_of_time(self) -> bool:
        """Whether the time has come at which everything is paused."""
        return self._stop_at is not None and time.time() >= self._stop_at

    def fetch(self, *, weights: bool = False) -> None:
        """Copy the small files of a store behind a URL; with `weights`, those of finished runs, too."""
        if self.mirror is not None:
            self.mirror.fetch(is_result if weights else is_small)

    @contextmanager
    def tracked(self, enabled: bool = True) -> Iterator[None]:
        """Follow the runs that begin in this block in MLflow, if the plan says so and MLflow answers.

        The MLflow run of a search is open as long as the block runs.
        """
        if not enabled or not self.plan.tracking.enabled:
            yield
            return
        from pipeline import tracking

        uri = tracking.tracking_uri(self.root)
        with tracking.Follower(uri) if tracking.initialise(uri) else nullcontext() as follower:
            self.uri, self.follower = uri, follower
            if self.search is None:
                yield
                return
            self.parent = tracking.open_parent(uri, "search", self.search, self.plan.profile)
            status: Status = "KILLED"
            try:
                yield
                status = "FINISHED"
            finally:
                if self.parent is not None:
                    tracking.close_parent(uri, self.parent, status)

    def claim(self, spec: RunSpec) -> bool:
        """Lock a run for this process; return False, without a lock, if another process has finished it meanwhile.

        Raises:
            UserError: if another process trains the run.
            OSError: if its folder cannot be written.
        """
        folder = self._lock(spec)
        if self.mirror is not None:
            self.mirror.update(folder.name)
        if not runs.finished(folder, spec.identity):
            return True
        with self._held.pop(folder):
            return False

    def begin(self, spec: RunSpec) -> Execution:
        """Make the run's folder and its entry in MLflow; the run is locked until it ends.

        Raises:
            UserError: if its provenance is damaged, or another process trains it.
            OSError: if its folder cannot be written.
        """
        folder = self._lock(spec)
        try:
            return self._begin(spec, folder)
        except BaseException:
            with self._held.pop(folder):
                raise

    def _lock(self, spec: RunSpec) -> Path:
        folder = self.store / spec.folder_name
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in self._held:
            self._held[folder] = lock_run(folder)
        return folder

    def _begin(self, spec: RunSpec, folder: Path) -> Execution:
        for left in (STOP_FILE, PROGRESS):  # by an earlier process
            (folder / left).unlink(missing_ok=True)
        write_json(folder / CONFIG, spec.to_json())
        profile = self.plan.profile
        before = Provenance.read(folder) or Provenance("running", profile)
        if self.mirror is not None:
            self.mirror.follow(folder.name)
        if self.uri is not None and self.follower is not None:
            from pipeline import tracking

            with best_effort(spec.name):
                run_id = tracking.open_run(self.uri, folder, profile=profile, parent=self.parent)
                before = replace(before, mlflow_run_id=run_id or before.mlflow_run_id)
                if run_id:
                    self.follower.add(run_id, folder)
        return replace(self.execution(spec), mlflow_run_id=before.mlflow_run_id)

    def execution(self, spec: RunSpec) -> Execution:
        """How and where a run is executed; touches nothing."""
        return Execution(
            folder=self.store / spec.folder_name,
            prepared=prepared_folder(self.data, spec.data.dataset).absolute(),
            noisy=noisy_folder(self.data, spec.data.dataset, spec.data.noise).absolute() if spec.data.noise else None,
            profile=self.plan.profile,
            threads=self.resources.threads,
            checkpoints=self.plan.checkpoints,
            stop_at=self._stop_at,
            commit=self.origin.commit,
            dirty=self.origin.dirty,
            command=self.origin.command,
            system_metrics=self.plan.tracking.system_metrics,
            store=self.mirror.store.url if self.mirror else None,
            remote=self.plan.remote,
        )

    def end(self, execution: Execution, error: str | None = None, tags: Mapping[str, str] | None = None) -> str:
        """Record how a run ended, in MLflow with `tags`; returns its status.

        Raises:
            UserError: if its provenance is damaged, or a store behind a URL does not say how it ended: then nothing
                is recorded, and the next command finds what the worker has written there.
        """
        with self._held.pop(execution.folder, nullcontext()):
            self._settle(execution)
            found = Provenance.read(execution.folder) or Provenance("failed", execution.profile)
            provenance = found.ended("failed", error) if error and not _is_finished(execution) else found
            if provenance.status == "running":  # the worker died without recording it
                provenance = provenance.ended("failed", "its worker died")
            self._close(execution, provenance, tags)
        return provenance.status

    def interrupt(self, execution: Execution) -> None:
        """Record that a run was stopped before its end; it continues from its last checkpoint."""
        with self._held.pop(execution.folder, nullcontext()):
            try:
                self._settle(execution)
            except UserError as error:
                logger.warning("%s: %s", execution.folder.name, error)
                return
            found = Provenance.read(execution.folder) or Provenance("paused", execution.profile)
            self._close(execution, found if found.status == "finished" else found.ended("paused"))

    def _settle(self, execution: Execution) -> None:
        if self.mirror is not None:
            self.mirror.finish(execution.folder.name)

    def _close(self, execution: Execution, provenance: Provenance, tags: Mapping[str, str] | None = None) -> None:
        if not _is_finished(execution):
            provenance.write(execution.folder)
        if self.mirror is not None:
            self.mirror.push(execution.folder.name, PROVENANCE)
        if self.uri is not None:
            from pipeline import tracking

            if self.follower is not None and provenance.mlflow_run_id:
                self.follower.remove(provenance.mlflow_run_id)
            states: dict[str, Status] = {"finished": "FINISHED", "failed": "FAILED"}
            state, run_id = states.get(provenance.status, "KILLED"), provenance.mlflow_run_id
            with best_effort(execution.folder.name):
                tracking.close_run(self.uri, run_id, execution.folder, state, parent=self.parent, tags=tags)


def _is_finished(execution: Execution) -> bool:
    """Whether a run has its metrics: from then on none of its files changes."""
    return (execution.folder / METRICS).exists()


@contextmanager
def best_effort(run: str) -> Iterator[None]:
    """Log what goes wrong with MLflow in this block; no run stops for it, as MLflow is only a view of the files."""
    try:
        yield
    except UserError:  # about a damaged file of the run
        raise
    except Exception as error:
        logger.warning("%s: MLflow has not all of it (%s); `track --sync` completes it", run, one_line(error))
