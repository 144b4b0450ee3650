"""Commands that show what the runs gave."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.options import Commands, add_command, port
from pipeline.utils.project import UI_PORT


def _report(commands: Commands) -> None:
    command = add_command(commands, "report", _run_report, "write the report of a profile from the runs that are there")
    command.add_argument("--profile", help="default: that of plan.json, else of params.yaml")
    command.add_argument("--replace", action="store_true", help="even a report with more runs than there are here")


def _run_report(options: argparse.Namespace) -> None:
    from pipeline.report.reporting import find_plan, log_report, write_report

    print(write_report(options.profile, Path.cwd(), replace=options.replace))
    log_report(find_plan(options.profile, Path.cwd()), Path.cwd())


def _trace(commands: Commands) -> None:
    command = add_command(commands, "trace", _run_trace, "show the runs behind a number of the report")
    command.add_argument(
        "number", help="<table>/<row>/<column>, e.g. table3/attention92/nal, or claims/<claim>, e.g. claims/noise-slope"
    )
    command.add_argument("--profile", help="default: that of plan.json, else of params.yaml")


def _run_trace(options: argparse.Namespace) -> None:
    from pipeline.report.reporting import trace_number

    print(trace_number(options.number, options.profile, Path.cwd()), end="")


def _compare(commands: Commands) -> None:
    add_command(commands, "compare", _run_compare, "say whether the report agrees with the committed one")


def _run_compare(options: argparse.Namespace) -> None:
    from pipeline.report.compare import compare
    from pipeline.settings.plan import Plan

    print(compare(Plan.read().profile, Path.cwd()))


def _track(commands: Commands) -> None:
    command = add_command(commands, "track", _run_track, "rebuild MLflow's view from the files")
    command.add_argument("--sync", action="store_true", required=True, help="log everything that MLflow does not have")


def _run_track(options: argparse.Namespace) -> int:
    from pipeline import tracking
    from pipeline.launch.driver import Driver
    from pipeline.report.reporting import find_plan, synchronise

    driver = Driver(find_plan(None, Path.cwd()), Path.cwd())
    uri = tracking.tracking_uri(driver.root)
    if not tracking.initialise(uri):
        return 1
    failed = 0
    for line, well in synchronise(driver, uri):
        print(line)
        failed += not well
    return int(failed > 0)


def _ui(commands: Commands) -> None:
    command = add_command(commands, "ui", _run_ui, "serve the MLflow UI")
    command.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    command.add_argument("--port", type=port, default=UI_PORT)


def _run_ui(options: argparse.Namespace) -> int:
    from pipeline.tracking.ui import serve

    return serve(Path.cwd(), options.host, options.port)


def _doctor(commands: Commands) -> None:
    add_command(commands, "doctor", _run_doctor, "say what is wrong with this machine and project, and what to type")


def _run_doctor(options: argparse.Namespace) -> int:
    from pipeline.launch.doctor import examine

    wrong = 0
    for finding in examine(Path.cwd()):
        print(finding, flush=True)
        wrong += not finding.fine
    return int(wrong > 0)


COMMANDS = (_report, _trace, _compare, _track, _ui, _doctor)
