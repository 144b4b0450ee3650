"""Where the report finds its runs, and where its pages go."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.report.compare import SUMMARY
from pipeline.runs.run_store import Mirror, RunStore
from pipeline.runs.store import PUBLISHED, RESULTS, store_folder
from pipeline.settings.plan import PLAN, Plan, build_plan
from pipeline.settings.reading import read_yaml
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json
from pipeline.utils.object_store import is_url

if TYPE_CHECKING:
    from pipeline.settings.tree import Config

REPORTS = Path("reports")

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
    for name in config.profiles(root):
        content = read_yaml(root / config.PROFILES / f"{name}.yaml")
        label = content.get("label") if isinstance(content, dict) else None
        statements[name] = str(label.get("statement", "")) if isinstance(label, dict) else ""
    return statements


def write_report(profile: str | None, root: Path, *, replace: bool = False) -> str:
    """Write the report of a profile, and the index of all reports.

    A report with fewer runs than the one that is there, as in a clone that has not trained them, does not replace it
    unless `replace` is set: it goes to ``reports/local/``.

    Returns:
        what was written, in words.
    """
    from pipeline.report import build_index, build_report

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
    build_index(reports, _statements(root))
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
        runs = read_json(report / SUMMARY)["runs"]
        return int(runs["done"]) + int(runs.get("published_seeds", 0))
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return 0


def trace_number(number: str, profile: str | None, root: Path) -> str:
    """Everything that is known of a number of the report."""
    from pipeline.report import trace

    plan = find_plan(profile, root)
    return trace(
        plan,
        _sources(plan, root),
        number,
        root / REPORTS / "counts",
        data=root / "data",
        margin=plan.report.equivalence_margin,
    )
