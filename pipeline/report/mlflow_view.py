"""MLflow's view of a project beyond single runs: its models and reports, and all of it again from the files."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import runs
from pipeline.launch.driver import Driver
from pipeline.report.reporting import find_plan
from pipeline.runs.records import CONFIG, METRICS, WEIGHTS, Metrics
from pipeline.settings.plan import Plan
from pipeline.utils.errors import UserError, one_line

logger = logging.getLogger(__name__)


def log_models(driver: Driver, uri: str) -> int:
    """Log the networks of the plan's finished runs as models: all, the best of the profile, or none, as the plan says.

    Only what has weights in the store, and only once. Returns how many of the wanted ones MLflow has.
    """
    specs = [run.spec for run in driver.plan.runs.values()]
    found = [(driver.store / spec.folder_name, spec) for spec in specs]
    finished = [folder for folder, spec in found if runs.finished(folder, spec.identity)]
    return _log_models(uri, finished, driver.plan.tracking.models)


def _log_models(uri: str, finished: Sequence[Path], wanted: str) -> int:
    """Log the wanted ones of the networks of one profile's finished runs; how many MLflow has."""
    from pipeline import tracking

    folders = [folder for folder in finished if wanted != "none" and (folder / WEIGHTS).exists()]
    if wanted == "best" and folders:
        folders = [min(folders, key=lambda folder: (Metrics.read(folder).test_error, folder.name))]
    logged = 0
    for folder in folders:
        run_id = tracking.find_run(uri, folder)
        try:
            logged += run_id is not None and tracking.log_model(uri, run_id, folder) is not None
        except Exception as error:  # PyTorch's exporter fails in many ways; the run is finished whatever it does
            logger.warning("%s: its network could not be logged as a model: %s", folder.name, one_line(error))
    return logged


def _sync_models(driver: Driver, uri: str) -> int:
    """Log the models of every profile that has finished runs in the store, as its own settings say."""
    finished: dict[str, list[Path]] = defaultdict(list)
    for folder in runs.folders(driver.store):
        if not (folder / METRICS).is_file():
            continue
        try:
            run = runs.read_finished(folder)
        except UserError:
            continue  # `sync` has named it
        if run.provenance is not None:
            finished[run.provenance.profile].append(folder)
    wanted = {profile: _plan_of(driver, profile).tracking.models for profile in finished}
    if any(models != "none" for models in wanted.values()):
        driver.fetch(weights=True)
    return sum(_log_models(uri, folders, wanted[profile]) for profile, folders in finished.items())


def _plan_of(driver: Driver, profile: str) -> Plan:
    """The plan of a profile that runs say they are of; of one that is no more, the driver's."""
    if profile == driver.plan.profile:
        return driver.plan
    try:
        return find_plan(profile, driver.root)
    except UserError:
        return driver.plan


def log_report(plan: Plan, root: Path) -> None:
    """Log the report of a plan's profile, if the plan is tracked, in a store that is there.

    A store is made by the first run that is tracked: without runs beside it a report has no business in MLflow.
    """
    from pipeline import tracking
    from pipeline.tracking.store import sqlite_path

    uri = tracking.tracking_uri(root)
    database = sqlite_path(uri)
    if plan.tracking.enabled and (database is None or database.exists()):
        tracking.log_report(uri, plan.profile, root / "reports" / plan.profile)


def synchronise(driver: Driver, uri: str) -> Iterator[tuple[str, bool]]:
    """Bring MLflow to what the files say: runs, searches, models, reports. Lines about it, and whether each went well.

    Raises:
        UserError: if a store behind a URL does not answer.
    """
    from pipeline import tracking
    from pipeline.tracking.describe import PAGE
    from pipeline.tracking.searches import log_search, sync_search
    from pipeline.tuning.results import REPORTS
    from pipeline.tuning.trials import Settled, searches

    driver.fetch()
    published = sorted(path.parent for path in (driver.root / runs.PUBLISHED).glob(f"*/*/{CONFIG}"))
    done = tracking.sync(uri, [*runs.folders(driver.store), *published])
    yield f"{done.runs} runs ({done.created} of them new), {done.points} points that were missing", not done.failed
    for name in done.failed:
        yield f"{name}: not taken", False
    for folder in searches(driver.store):
        search, trials = sync_search(uri, folder)
        results = driver.root / REPORTS / Settled.read(folder).name
        if search is not None and results.is_dir():
            log_search(uri, search, results)
        yield f"search {folder.name}: {trials} trials", search is not None
    yield f"{_sync_models(driver, uri)} logged models", True
    for page in sorted((driver.root / "reports").glob(f"*/{PAGE}")):
        profile = page.parent.name
        yield f"report of {profile}", tracking.log_report(uri, profile, page.parent) is not None
