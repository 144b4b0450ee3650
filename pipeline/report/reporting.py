"""Where the report finds its runs, and where its pages go."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.report.compare import SUMMARY
from pipeline.runs.numerics import NUMERICS
from pipeline.runs.run_store import Mirror, RunStore
from pipeline.runs.store import PUBLISHED, RESULTS, store_folder
from pipeline.settings import plan as plans
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json
from pipeline.utils.object_store import is_url

if TYPE_CHECKING:
    from pipeline.settings.config import Config

REPORTS = Path("reports")

logger = logging.getLogger(__name__)


def find_plan(profile: str | None, root: Path) -> dict[str, Any]:
    """The plan of a profile: plan.json if it is that one's, else a plan without identities, made from its settings.

    Such a plan needs no data: the report works in a fresh clone, over whatever is published.
    """
    if (root / plans.PLAN).exists():
        plan = plans.read_plan(root / plans.PLAN)
        if profile in (None, plan["profile"]):
            return plan
    return plan_without_data(_settings(profile, root))


def _settings(profile: str | None, root: Path) -> Config:
    """Settings of a profile: params.yaml if it holds that one, else composed from conf/."""
    from pipeline.settings import config

    params = root / config.PARAMS
    current = config.read_yaml(params) if profile is None or params.exists() else {}
    if profile is None or (isinstance(current, dict) and current.get("profile") == profile):
        return config.parse(current, str(params))
    with TemporaryDirectory() as folder:
        return config.compose(profile, [], Path(folder) / config.PARAMS, root)


def plan_without_data(config: Config) -> dict[str, Any]:
    """A plan for the report alone: what depends on the data (checksums, sizes, and so identities) is left open."""
    runs = {
        f"{name}-s{seed}": {
            "experiment": name,
            "seed": seed,
            "network": {"name": experiment.network, "options": plans.own_options(experiment)},
            "data": {"dataset": config.data.name, "noise": experiment.noise},
            "protocol": config.protocol.model_dump(),
            "precision": config.precision,
            "channels_last": config.channels_last,
            "compile": config.compile,
            "numerics": NUMERICS,
            **({"crops": asdict(crops)} if (crops := plans.crops_of(config, experiment)) else {}),
        }
        for name, experiment in config.experiments.items()
        for seed in config.seeds
    }
    return {
        "profile": config.profile,
        "labels": config.label.model_dump(),
        "report": config.report.model_dump(),
        "execution": plans.execution(config),
        "identity": dict.fromkeys(runs),
        "runs": json.loads(json.dumps(runs)),  # as a run's config.json has it: tuples are lists there
    }


def _sources(plan: dict[str, Any], root: Path) -> list[Path]:
    """Where runs may lie, the richest first: the store has what a run ran on, results/ has only its numbers."""
    store = plan["execution"]["store"]
    copies = store_folder(store, root)
    if is_url(store):
        try:
            Mirror(RunStore(store), copies).fetch()
        except UserError as error:  # the report works over whatever is here
            logger.warning("%s; going on with the runs that are here", error)
    return [copies, root / PUBLISHED, root / RESULTS]


def _statements(root: Path) -> dict[str, str]:
    """What each profile under conf/ says of itself."""
    from pipeline.settings import config

    statements = {}
    for name in config.profiles(root):
        content = config.read_yaml(root / config.PROFILES / f"{name}.yaml")
        label = content.get("label") if isinstance(content, dict) else None
        statements[name] = str(label.get("statement", "")) if isinstance(label, dict) else ""
    return statements


def write_report(profile: str | None, root: Path) -> str:
    """Write the report of a profile, and the index of all; what was written, in words."""
    from pipeline.report import build_index, build_report

    plan = find_plan(profile, root)
    name, reports = plan["profile"], root / REPORTS
    before = _finished(reports / name)
    summary = build_report(
        plan,
        _sources(plan, root),
        out=reports / name,
        local=reports / "local" / name,
        counts=reports / "counts",
        benchmarks=root / "benchmarks" / "networks",
        data=root / "data",
        margin=plan["report"]["equivalence_margin"],
    )
    build_index(reports, _statements(root))
    lost = before - _finished(reports / name)
    if lost > 0:
        logger.warning(
            "%s: %d runs that the report had are not on this machine, and are pending in it now; if it was committed,"
            " `git checkout -- %s` brings it back",
            reports / name,
            lost,
            (reports / name).relative_to(root),
        )
    return str(summary)


def _finished(report: Path) -> int:
    """How many finished runs stand in a report; 0 where there is none."""
    try:
        return int(read_json(report / SUMMARY)["runs"]["done"])
    except (UserError, KeyError, TypeError, ValueError):
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
        margin=plan["report"]["equivalence_margin"],
    )
