"""`python -m pipeline tune`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import tracking
from pipeline.runs.run_lock import lock_run
from pipeline.settings.config import PARAMS, load
from pipeline.settings.reading import read_yaml
from pipeline.tuning.results import SearchResults, verdict, write_results
from pipeline.tuning.search import Search, prepare
from pipeline.tuning.space import load_space
from pipeline.tuning.trials import trials
from pipeline.utils.errors import UserError

MEASURE = "validation error"


def tune(
    space: str, experiment: str, wanted: int | None, max_parallel: int | None, *, resume: bool, root: Path
) -> tuple[SearchResults, Path]:
    """Search, or continue a search, and write its results; return them and their folder.

    Raises:
        UserError: if something does not fit, a search was begun and `resume` is not asked for, or another process is
            at it.
        KeyboardInterrupt: when Ctrl-C has ended it.
    """
    settings, tree = load(root / PARAMS), read_yaml(root / PARAMS)
    search = prepare(settings, tree, load_space(space, root), experiment, wanted, root, max_parallel)
    _check_begun(search, resume=resume)
    search.config.write(search.folder)
    if search.missing() > 0:
        with lock_run(search.folder):
            try:
                _run(search)
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
            f"search {search.config.folder_name}: was begun, {ended} of {search.config.wanted} trials have ended;"
            f" --resume continues it (a new one needs {search.folder} out of the way)"
        )


def _run(search: Search) -> None:
    """Train what is missing in a Ray session of its own, followed in MLflow."""
    from pipeline.launch import cluster
    from pipeline.launch.progress import ProgressTable
    from pipeline.tuning.ray_tune import run_search

    driver = search.driver
    with cluster.connected(driver.root), driver.tracked(), ProgressTable(search.missing(), measure=MEASURE) as table:
        cluster.quiet()
        run_search(search, table)


def summary(found: SearchResults, target: Path) -> str:
    """The last lines of the command."""
    lines = [f"{target}: {found.count('finished')} finished, {found.count('pruned')} stopped early"]
    lines += verdict(found)
    if found.best is not None:
        lines.append(
            f"to take it: python -m pipeline compose {found.config.profile} --override {target / 'best.yaml'}"
            " && git diff params.yaml"
        )
    return "\n".join(lines)
