"""Ray Tune over Ray Train runs.

Each trial of Tune is a driver of its own Ray Train run, whose evaluations Tune compares. Two things differ from Ray's
pattern for this, both because of what happens when a search is stopped or killed:

- A trial is asked to stop by a file in its folder, and ends by itself. Tune would kill the trial's actor;
  the placement group of the run's workers then stays reserved for the rest of the session, unless Ray's dashboard
  runs, and no other trial can have its cores.
- A search continues from the folders of its trials. `Tuner.restore` forgets what the scheduler has compared, and
  the trials that began after its last snapshot.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from pipeline import runs
from pipeline.launch import placement, ray_train
from pipeline.launch.progress import ProgressTable
from pipeline.runs.execution import STOP_FILE
from pipeline.runs.records import HISTORY, Evaluation, read_rows
from pipeline.tuning.search import FINISHED, Job, Search
from pipeline.tuning.trials import Progress, trials

METRIC, TIME, OUTCOME, RUNG = "test_error", "iteration", "outcome", "rung"
STORAGE = ".ray"  # Ray Tune's own notes, in the folder of the search; nobody reads them
REFRESH_SECONDS = 1.0

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no second copy of every result
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails before its first evaluation has no error
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # snapshots are of no use here
    "RAY_AIR_NEW_OUTPUT": "0",  # the progress table shows it all
}


def run_search(search: Search, table: ProgressTable) -> None:
    """Train the trials that a search still misses, as many at once as the cluster allows; needs a Ray session.

    Raises:
        KeyboardInterrupt: when Ctrl-C has ended it. What has ended is kept, the rest continues from checkpoints.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    resources = search.driver.resources
    worker_resources = placement.share(resources)
    placement.check_search_shared(search.folder, search.driver.plan.store)
    count, slots = search.missing(), placement.parallel(resources, worker_resources)
    table.note(
        f"{count} trials to train, {min(slots, count)} at once, each on {worker_resources.describe(resources.workers)};"
        f" errors are those of {search.config.validation_images} held-out training images"
    )
    suggestions = Suggestions(search, table, {"resources": resources, "worker_resources": worker_resources})
    tuner = tune.Tuner(
        # A trial itself computes nothing, and a bundle must hold something: a byte.
        tune.with_resources(_trial, tune.PlacementGroupFactory([{"memory": 1}])),
        tune_config=tune.TuneConfig(
            search_alg=suggestions,
            scheduler=_Halving(search, trials(search.folder)),
            num_samples=count,
            max_concurrent_trials=slots,
            trial_name_creator=lambda trial: str(trial.config["job"].spec.name),
            trial_dirname_creator=lambda trial: str(trial.config["job"].spec.name),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(search.folder / STORAGE),
            verbose=0,
            callbacks=[_Refresh(table)],
        ),
    )
    try:
        tuner.fit()
    finally:
        interrupted = bool(search.going)
        for job in search.going.values():
            table.ended(job.spec, "interrupted", None)
        search.interrupted()
        shutil.rmtree(search.folder / STORAGE, ignore_errors=True)
    if interrupted:
        raise KeyboardInterrupt


def _trial(config: dict[str, Any]) -> None:
    """A trial: trains its run, or reports again what a finished one has reached."""
    job: Job = config["job"]
    folder = job.execution.folder
    outcome = FINISHED
    if not runs.finished(folder, job.spec.identity):
        for row in read_rows(folder / HISTORY, Evaluation):  # of a trial that continues: the comparisons so far
            tune.report(asdict(row))
        outcome = ray_train.train_under_ray(
            job.spec, job.execution, config["resources"], config["worker_resources"], is_trial=True
        )
    rows = read_rows(folder / HISTORY, Evaluation)
    tune.report((asdict(rows[-1]) if rows else {}) | {OUTCOME: outcome})


class Suggestions(Searcher):
    """Gives Tune the next trial, and records the end of each."""

    def __init__(self, search: Search, table: ProgressTable, shared: Mapping[str, Any]) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._search, self._table, self._shared = search, table, shared
        self._jobs = search.jobs()
        self._going: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The configuration of the next trial."""
        job = next(self._jobs, None)
        if job is None:
            return str(Searcher.FINISHED)
        self._going[trial_id] = job
        self._table.begun(job.spec, job.execution.folder)
        return {"job": job, **self._shared}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended."""
        job, result = self._going.pop(trial_id), result or {}
        outcome = "failed: its driver died" if error else result.get(OUTCOME, "failed: it ended without a word")
        progress = self._search.end(job, outcome, result.get(TIME, 0))
        self._table.ended(job.spec, progress.trial.state, progress.trial.reason)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials' folders have it all."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher once, for a `Tuner.restore` that nobody calls


class _Halving(ASHAScheduler):
    """Asynchronous successive halving that remembers the trials of earlier sessions and asks trials to stop.

    ASHA puts its rungs at powers of the reduction factor. Its unit of time is therefore that factor to the power of
    the rungs that a trial has passed, so that it compares exactly at the rungs of the search.
    """

    def __init__(self, search: Search, earlier: list[Progress]) -> None:
        self._rungs, self._factor = search.config.rungs, search.space.stopping.reduction_factor
        super().__init__(
            time_attr=RUNG,
            metric=METRIC,
            mode="min",
            max_t=self._factor ** (len(self._rungs) + 1),  # never reached: the end of a trial is no comparison
            grace_period=self._factor,
            reduction_factor=self._factor,
        )
        for progress in earlier:
            if progress.trial.ended:
                self._remember(progress)

    def _remember(self, progress: Progress) -> None:
        past = SimpleNamespace(trial_id=f"earlier-{progress.trial.number}")
        self.on_trial_add(None, past)
        for row in progress.rows:
            super().on_trial_result(None, past, self._at_rung(asdict(row)))

    def _at_rung(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {**result, RUNG: self._factor ** bisect_right(self._rungs, result.get(TIME, 0))}

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = str(super().on_trial_result(controller, trial, self._at_rung(result)))
        if decision != self.STOP or OUTCOME in result:
            return decision
        (trial.config["job"].execution.folder / STOP_FILE).touch()
        return str(self.CONTINUE)


class _Refresh(tune.Callback):
    """Keeps the progress table up to date while Tune waits."""

    def __init__(self, table: ProgressTable) -> None:
        self._table, self._refreshed = table, 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._table.refresh()

    def __getstate__(self) -> dict[str, Any]:
        return {}
