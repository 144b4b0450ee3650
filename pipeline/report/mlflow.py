"""What MLflow shows of a project beyond single runs: models and reports; and all of it again from the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipeline import runs, tracking
from pipeline.launch.driver import Driver
from pipeline.report.reporting import find_plan
from pipeline.runs.records import CONFIG, METRICS
from pipeline.settings.plan import Plan
from pipeline.tracking.database import sqlite_path
from pipeline.tracking.describe import PAGE
from pipeline.tuning.results import REPORTS
from pipeline.tuning.tracking import sync_search
from pipeline.tuning.trials import SEARCH, SearchConfig, searches
from pipeline.utils.errors import UserError
from pipeline.utils.names import checked_plain_name


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
    return sum(
        tracking.log_models(uri, folders, profile, wanted[profile], driver.root)
        for profile, folders in finished.items()
    )


def _plan_of(driver: Driver, profile: str) -> Plan:
    """The plan of a profile that runs name; the driver's, where there is no such profile (any more)."""
    if profile == driver.plan.profile:
        return driver.plan
    try:
        return find_plan(profile, driver.root)
    except UserError:
        return driver.plan


def log_report(plan: Plan, root: Path) -> None:
    """Log the report of a plan's profile, if the plan is tracked, in a store that is there.

    A store is made by the first run that is tracked; a report alone does not make one.
    """
    uri = tracking.tracking_uri(root)
    database = sqlite_path(uri)
    if plan.tracking.enabled and (database is None or database.exists()):
        tracking.log_report(uri, plan.profile, root / "reports" / plan.profile)


def synchronise(driver: Driver, uri: str) -> Iterator[tuple[str, bool]]:
    """Log whatever MLflow lacks of runs, searches, models and reports; yield lines about it, and whether it went well.

    Raises:
        UserError: if a store behind a URL does not answer, or a search has no proper name.
    """
    driver.fetch()
    published = sorted(path.parent for path in (driver.root / runs.PUBLISHED).glob(f"*/*/{CONFIG}"))
    done = tracking.sync(uri, [*runs.folders(driver.store), *published])
    yield f"{done.runs} runs ({done.created} of them new), {done.points} points that were missing", not done.failed
    for name in done.failed:
        yield f"{name}: not taken", False
    for folder in searches(driver.store):
        search, trials = sync_search(uri, folder)
        results = driver.root / REPORTS / checked_plain_name(SearchConfig.read(folder).name, folder / SEARCH)
        if search is not None and results.is_dir():
            tracking.log_artifacts(uri, search, results)
        yield f"search {folder.name}: {trials} trials", search is not None
    yield f"{_sync_models(driver, uri)} logged models", True
    for page in sorted((driver.root / "reports").glob(f"*/{PAGE}")):
        profile = page.parent.name
        yield f"report of {profile}", tracking.log_report(uri, profile, page.parent) is not None
