"""`python -m pipeline tune`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import tracking
from pipeline.settings import config
from pipeline.settings.reading import read_yaml
from pipeline.tuning.results import Findings, verdict, write_results
from pipeline.tuning.search import Search, prepare
from pipeline.tuning.space import load_space
from pipeline.tuning.trials import trials
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from pipeline.tracking.parents import Status

MEASURE = "validation error"


def tune(
    space: str, experiment: str, wanted: int | None, max_parallel: int | None, *, resume: bool, root: Path
) -> tuple[Findings, Path]:
    """Search, or continue a search, and write what was found; the findings and the folder of the results.

    Raises:
        UserError: if something does not fit, or a search was begun and `resume` is not asked for.
        KeyboardInterrupt: when Ctrl-C has ended it.
    """
    settings, tree = config.load(root / config.PARAMS), read_yaml(root / config.PARAMS)
    search = prepare(settings, tree, load_space(space, root), experiment, wanted, root)
    _check_begun(search, resume=resume)
    search.settled.write(search.folder)
    if search.missing() > 0:
        try:
            _run(search, max_parallel)
        except KeyboardInterrupt:
            print("--resume continues the search", file=sys.stderr)
            raise
    found, target = write_results(search.folder)
    driver = search.driver
    if driver.uri is not None and driver.parent is not None:
        tracking.log_artifacts(driver.uri, driver.parent, target)
    return found, target


def _check_begun(search: Search, *, resume: bool) -> None:
    """Refuse to continue a search unasked."""
    before = trials(search.folder)
    if before and search.missing() > 0 and not resume:
        ended = sum(progress.trial.ended for progress in before)
        raise UserError(
            f"search {search.settled.folder_name}: was begun, {ended} of {search.settled.wanted} trials have ended;"
            f" --resume continues it (a new one needs {search.folder} out of the way)"
        )


def _run(search: Search, max_parallel: int | None) -> None:
    """Train what is missing in a Ray session of its own, followed in MLflow."""
    from pipeline.launch import cluster
    from pipeline.launch.progress import ProgressTable
    from pipeline.tuning.ray_tune import run_search

    driver, settled = search.driver, search.settled
    if max_parallel:
        driver.resources = replace(driver.resources, max_parallel=max_parallel)
    with cluster.connected(driver.root), driver.tracked(), ProgressTable(search.missing(), measure=MEASURE) as table:
        cluster.quiet()
        if driver.uri is not None:
            driver.parent = tracking.open_parent(driver.uri, "search", settled.folder_name, settled.profile)
        status: Status = "KILLED"
        try:
            run_search(search, table)
            status = "FINISHED"
        finally:
            if driver.uri is not None and driver.parent is not None:
                tracking.close_parent(driver.uri, driver.parent, status)


def summary(found: Findings, target: Path) -> str:
    """The last lines of the command."""
    lines = [f"{target}: {found.count('finished')} finished, {found.count('pruned')} stopped early"]
    lines += verdict(found)
    if found.best is not None:
        lines.append(
            f"to take it: python -m pipeline compose {found.settled.profile} --override {target / 'best.yaml'}"
            " && git diff params.yaml"
        )
    return "\n".join(lines)
