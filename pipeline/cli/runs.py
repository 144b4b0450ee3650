"""Commands about the runs on disk: list, publish and import them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.options import REPORTS, Commands, add_command
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.launch.driver import Driver


def _runs(commands: Commands) -> None:
    command = add_command(commands, "runs", _run_list, "list, publish, import or archive runs")
    command.set_defaults(csv=None, json=False)
    actions = command.add_subparsers(metavar="list|publish|import|crate", required=True)
    listing = actions.add_parser("list", help="the runs of the plan: status, error, time and progress")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--csv", type=Path, metavar="FILE", help="write all runs, in the store and published, as a table")
    form.add_argument("--json", action="store_true", help="print that table as JSON")
    listing.set_defaults(run=_run_list)
    publishing = actions.add_parser("publish", help="copy finished runs, without weights, to published/")
    publishing.add_argument("pattern", help="run names, e.g. 'attention56*'; '*' for all that are finished")
    publishing.set_defaults(run=_run_publish)
    importing = actions.add_parser("import", help="copy runs made elsewhere into the store")
    importing.add_argument("folder", type=Path, help="a run's folder, or one that holds several")
    importing.set_defaults(run=_run_import)
    crate = actions.add_parser("crate", help="runs and report of a profile as an RO-Crate, for an archive")
    crate.add_argument("folder", type=Path, help="a new folder for the crate")
    crate.add_argument("--profile", help="default: that of plan.json, else of params.yaml")
    crate.set_defaults(run=_run_crate)


def _driver() -> Driver:
    """The driver of the plan, once it knows what a store behind a URL has."""
    from pipeline.launch.driver import Driver
    from pipeline.settings.plan import Plan

    driver = Driver(Plan.read(), Path.cwd())
    driver.fetch()
    return driver


def _run_list(options: argparse.Namespace) -> None:
    from pipeline import runs
    from pipeline.utils.files import write_atomic
    from pipeline.utils.text import spreadsheet_cell

    driver = _driver()
    frame = runs.as_frame(driver.plan.store, Path.cwd())
    if options.csv:
        cells = frame.reset_index().map(spreadsheet_cell)
        write_atomic(options.csv, cells.to_csv(index=False, lineterminator="\n"))
        print(f"{options.csv}: {len(frame)} runs")
    elif options.json:
        print(frame.reset_index().to_json(orient="records", indent=2, double_precision=15))
    else:
        width = max(map(len, driver.plan.runs), default=0)
        for name, run in driver.plan.runs.items():
            print(f"{name:{width}}  {run.identity}  {_line(run.spec, frame, driver)}".rstrip())


def _line(spec: Any, frame: pd.DataFrame, driver: Driver) -> str:
    """Status, error, time and progress of a planned run."""
    from datetime import timedelta

    import pandas as pd

    from pipeline import runs

    if spec.folder_name not in frame.index:
        return "pending"
    row = frame.loc[spec.folder_name]
    if row["status"] == "damaged":
        return f"damaged    {row['problem']}"
    error = "" if pd.isna(row["test_error"]) else f"{row['test_error']:.2f} %"
    time = "" if pd.isna(row["seconds"]) else timedelta(seconds=round(row["seconds"]))
    progress = f"{row['iteration']:.0f}/{spec.protocol.iterations} iterations"
    unverified = "  unverified" if row["status"] == "finished" and not row["verified"] else ""
    return f"{runs.status(spec, driver.store):9}  {error:>8}  {time!s:>9}  {progress}{unverified}"


def _run_publish(options: argparse.Namespace) -> None:
    from fnmatch import fnmatchcase

    from pipeline import runs

    driver = _driver()
    specs = [run.spec for name, run in driver.plan.runs.items() if fnmatchcase(name, options.pattern)]
    done = [spec for spec in specs if runs.finished(driver.store / spec.folder_name, spec.identity)]
    if not done:
        raise UserError(f"{options.pattern!r}: fits no finished run in the store {driver.store}")
    for spec in done:
        print(runs.publish(spec, driver.plan.profile, driver.store))


def _run_import(options: argparse.Namespace) -> None:
    from pipeline import runs

    driver = _driver()
    names = runs.import_runs(options.folder, driver.store, driver.mirror.store if driver.mirror else None)
    for name in names:
        if driver.mirror is not None:
            driver.mirror.add(name)
        print(f"{driver.store / name}: imported")
    if not names:
        print("nothing new")


def _run_crate(options: argparse.Namespace) -> None:
    from pipeline import runs
    from pipeline.report.reporting import find_plan
    from pipeline.runs.crate import write_crate

    plan = find_plan(options.profile, Path.cwd())
    profile, store = plan.profile, runs.store_folder(plan.store, Path.cwd())
    found: list[Path] = []
    for name, run in plan.runs.items():
        if run.identity is None:  # a plan without data, in a fresh clone
            folders = sorted((runs.PUBLISHED / profile).glob(f"{name}-*"))
        else:
            copies = sorted(runs.PUBLISHED.glob(f"*/{name}-{run.identity}"))
            folders = [store / f"{name}-{run.identity}", *copies]
        found += [folder for folder in folders if runs.finished(folder, folder.name.rpartition("-")[2])][:1]
    report = REPORTS / profile
    count = write_crate(profile, plan.label.statement, found, report, options.folder, Path.cwd())
    print(f"{options.folder}: {len(found)} runs of profile {profile}, {count} files")


COMMANDS = (_runs,)
