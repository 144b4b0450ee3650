"""The commands `report`, `trace` and `track --sync`: where they find runs, and where their results go."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline import runs, tracking
from pipeline.launch.driver import Driver
from pipeline.report.summaries import SUMMARY, RunCount
from pipeline.runs.reading import DamagedError, parse, read_object
from pipeline.runs.records import CONFIG, METRICS
from pipeline.runs.run_store import Mirror, RunStore
from pipeline.runs.store import PUBLISHED, RESULTS, store_folder
from pipeline.settings.plan import PLAN, Plan
from pipeline.settings.planning import build_plan
from pipeline.settings.reading import read_yaml
from pipeline.tracking.database import sqlite_path
from pipeline.tracking.describe import PAGE, Described
from pipeline.tuning.results import REPORTS as SEARCH_REPORTS
from pipeline.tuning.tracking import sync_search
from pipeline.tuning.trials import SearchConfig, searches
from pipeline.utils.errors import UserError, printable
from pipeline.utils.names import checked_plain_name
from pipeline.utils.object_store import is_url

if TYPE_CHECKING:
    from pipeline.settings.tree import Config


REPORTS = Path("reports")
TRIALS = ("smoke",)
"""Profiles to try commands with: their reports are not results, and no index lists them."""

logger = logging.getLogger(__name__)


def find_plan(profile: str | None, root: Path) -> Plan:
    """The plan of a profile: plan.json if it is that one's, else a plan without identities, made from its settings.

    Such a plan needs no data: the report works in a fresh clone, over whatever is published.
    """
    if (root / PLAN).exists():
        plan = Plan.read(root / PLAN)
        if profile in (None, plan.profile):
            return plan
    return build_plan(_settings(profile, root), None)


def _settings(profile: str | None, root: Path) -> Config:
    """Settings of a profile: params.yaml if it holds that one, else composed from conf/."""
    from pipeline.settings import config

    params = root / config.PARAMS
    current = read_yaml(params) if profile is None or params.exists() else {}
    if profile is None or (isinstance(current, dict) and current.get("profile") == profile):
        return config.parse(current, str(params))
    with TemporaryDirectory() as folder:
        return config.compose(profile, [], Path(folder) / config.PARAMS, root)


def _sources(plan: Plan, root: Path) -> list[Path]:
    """Where runs may lie, the richest first: the store has what a run ran on, results/ has only its numbers."""
    copies = store_folder(plan.store, root)
    if is_url(plan.store):
        try:
            Mirror(RunStore(plan.store), copies).fetch()
        except UserError as error:  # the report works over whatever is here
            logger.warning("%s; going on with the runs that are here", error)
    return [copies, root / PUBLISHED, root / RESULTS]


def _statements(root: Path) -> dict[str, str]:
    """What each profile under conf/ says of itself."""
    from pipeline.settings import config

    statements = {}
    for name in sorted({*config.profiles(root)} - {*TRIALS}):
        content = read_yaml(root / config.PROFILES / f"{name}.yaml")
        label = content.get("label") if isinstance(content, dict) else None
        statements[name] = str(label.get("statement", "")) if isinstance(label, dict) else ""
    return statements


def write_report(profile: str | None, root: Path, *, replace: bool = False) -> str:
    """Write the report of a profile, and the index of all reports.

    A report with fewer runs than the one that is there, as in a clone that has not trained them, does not replace it
    unless `replace` is set: it goes to ``reports/local/``.

    Returns:
        what was written, as text.
    """
    from pipeline.report.build import build_index, build_report

    plan = find_plan(profile, root)
    name, reports = plan.profile, root / REPORTS
    before = _finished(reports / name)
    summary = build_report(
        plan,
        _sources(plan, root),
        out=reports / name,
        local=reports / "local" / name,
        counts=reports / "counts",
        benchmarks=root / "benchmarks" / "networks",
        data=root / "data",
        margin=plan.report.equivalence_margin,
        at_least=0 if replace else before,
    )
    build_index(reports, _statements(root), TRIALS)
    if summary.report.parent != reports / name:
        logger.warning(
            "%s has %d runs, this machine has fewer: it stays as it is, and the report of the runs that are here is in"
            " %s; `python -m pipeline report --replace` replaces it",
            (reports / name).relative_to(root),
            before,
            summary.report.parent.relative_to(root),
        )
    return str(summary)


def _finished(report: Path) -> int:
    """How many finished runs stand in a report; 0 where there is none."""
    try:
        path = report / SUMMARY
        return parse(RunCount, read_object(path).get("runs"), path).finished
    except DamagedError:
        return 0


def trace_number(number: str, profile: str | None, root: Path) -> str:
    """Everything that is known of a number of the report."""
    from pipeline.report.trace import trace

    plan = find_plan(profile, root)
    return trace(
        plan,
        _sources(plan, root),
        number,
        root / REPORTS / "counts",
        data=root / "data",
        margin=plan.report.equivalence_margin,
    )


def _sync_models(driver: Driver, uri: str) -> int:
    """Log the models of every profile that has finished runs in the store, as its own settings say."""
    finished: dict[str, list[Path]] = defaultdict(list)
    for folder in runs.folders(driver.store):
        if not (folder / METRICS).is_file():
            continue
        try:
            runs.read_finished(folder)
            provenance = Described.read(folder).provenance
        except UserError:
            continue  # `sync` has named it
        if provenance is not None:
            finished[provenance.profile].append(folder)
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

    A folder that cannot be taken is named; everything else goes on.

    Raises:
        UserError: if a store behind a URL does not answer.
    """
    driver.fetch()
    published = sorted(path.parent for path in (driver.root / runs.PUBLISHED).glob(f"*/*/{CONFIG}"))
    done = tracking.sync(uri, [*runs.folders(driver.store), *published])
    yield f"{done.runs} runs ({done.created} of them new), {done.points} points that were missing", not done.failed
    for name in done.failed:
        yield printable(f"{name}: not taken"), False
    for folder in searches(driver.store):
        try:
            search, trials = sync_search(uri, folder)
            results = driver.root / SEARCH_REPORTS / SearchConfig.read(folder).name
        except UserError as error:
            yield printable(f"search {folder.name}: not taken: {error}"), False
            continue
        if search is not None and results.is_dir():
            tracking.log_artifacts(uri, search, results)
        yield printable(f"search {folder.name}: {trials} trials"), search is not None
    yield f"{_sync_models(driver, uri)} logged models", True
    for page in sorted((driver.root / "reports").glob(f"*/{PAGE}")):
        profile = page.parent.name
        try:
            checked_plain_name(profile, "profile")
        except UserError as error:
            yield f"report of {printable(profile)}: not taken: {error}", False
            continue
        yield f"report of {profile}", tracking.log_report(uri, profile, page.parent) is not None
