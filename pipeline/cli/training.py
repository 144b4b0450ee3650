"""Commands that plan, train and keep runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.options import DATA, Commands, add_command, minutes, positive

if TYPE_CHECKING:
    from pipeline.settings.plan import Plan

PAUSED = 75  # EX_TEMPFAIL: inside a DVC stage a paused run leaves the stage pending
MARKER = "launched\n"


def _plan(commands: Commands) -> None:
    command = add_command(
        commands, "plan", _run_plan, "resolve the profile into plan.json: every run, its identity, its cost"
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument(
        "--probe", action="store_true", help="train each network here for a while, a minute in all, to tell the cost"
    )
    form.add_argument("--json", action="store_true", help="print the runs of the plan as JSON")


def _run_plan(options: argparse.Namespace) -> None:
    from pipeline.settings.plan import PLAN

    plan = _make_plan()
    if options.json:
        print(json.dumps(plan.to_rows(), indent=2))
        return
    print(f"{PLAN}: {len(plan.runs)} runs of profile {plan.profile}", flush=True)
    print(_outlook(plan, by_probe=options.probe))


def _make_plan() -> Plan:
    """Check the settings, say where they differ from conf/, and write ``plan.json``."""
    from pipeline.settings import config
    from pipeline.settings.planning import build_plan

    settings = config.load()
    drift = config.drift()
    for line in drift:
        print(f"note: {line}", file=sys.stderr)
    if drift:
        print(
            f"note: `make repro PROFILE={settings.profile}` would overwrite these edits of params.yaml; `dvc repro` and"
            " `dvc exp run` keep them",
            file=sys.stderr,
        )
    plan = build_plan(settings, DATA)
    plan.write()
    return plan


def _current_plan() -> Plan:
    """Plan ``params.yaml`` as it is now; read the plan that is there inside a stage of DVC, and without that file."""
    from pipeline.settings.plan import PARAMS, Plan

    return Plan.read() if "DVC_STAGE" in os.environ or not Path(PARAMS).exists() else _make_plan()


def _outlook(plan: Plan, *, by_probe: bool) -> str:
    """What is pending, and what it will cost."""
    from pipeline.launch.driver import Driver
    from pipeline.launch.estimate import outlook
    from pipeline.launch.probe import probe
    from pipeline.launch.scheduler import pending

    driver = Driver(plan, Path.cwd())
    specs = pending(driver)
    return outlook(driver, specs, probe(driver, specs) if by_probe else ())


def _launch(commands: Commands) -> None:
    command = add_command(commands, "launch", _run_launch, "train every pending run of the plan at once")
    command.add_argument("--only", default="*", metavar="PATTERN", help="e.g. 'attention56*' or 'resnet164-s0'")
    command.add_argument("--max-parallel", type=positive, metavar="N", help="runs at once, at most")
    command.add_argument("--dry-run", action="store_true", help="only say what is pending and what it would cost")
    command.add_argument("--stop-after", type=minutes, metavar="MIN", help="pause what is not done after MIN minutes")


def _run_launch(options: argparse.Namespace) -> int:
    from pipeline.launch.driver import Driver
    from pipeline.launch.estimate import outlook
    from pipeline.launch.progress import ProgressTable
    from pipeline.launch.scheduler import launch, pending, wait_for_others
    from pipeline.runs.store import RESULTS
    from pipeline.utils.files import write_atomic
    from pipeline.utils.signals import Interrupted

    in_stage = "DVC_STAGE" in os.environ
    driver = Driver(_current_plan(), Path.cwd(), stop_after=options.stop_after, max_parallel=options.max_parallel)
    specs = pending(driver, options.only)
    if in_stage and wait_for_others(driver, specs):
        specs = pending(driver, options.only)
    print(outlook(driver, specs))
    failed = False
    if specs and not options.dry_run:
        with ProgressTable(len(specs)) as table:
            summary = launch(driver, specs, table)
        for name, reason in summary.failed.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
        if summary.paused:
            print(f"paused: {', '.join(summary.paused)}; the same command continues")
        if summary.interrupted is not None:
            raise Interrupted(summary.interrupted)
        if summary.ray_lost:
            return 1  # also inside a stage: the next ones would only start Ray again, one after the other
        failed = bool(summary.failed)
    if in_stage:
        write_atomic(RESULTS / "launched", MARKER)
        return 0
    return int(failed)


def _train(commands: Commands) -> None:
    command = add_command(commands, "train", _run_train, "train one run of the plan, or collect it if it is there")
    command.add_argument("experiment", help="e.g. attention56-nal")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--in-process", action="store_true", help="in this process, without Ray and MLflow")
    command.add_argument("--stop-after", type=minutes, metavar="MIN", help="pause after MIN minutes")


def _run_train(options: argparse.Namespace) -> int:
    from pipeline import runs
    from pipeline.launch.driver import Driver

    driver = Driver(_current_plan(), Path.cwd(), stop_after=options.stop_after)
    spec = driver.plan.run(options.experiment, options.seed).spec
    target = runs.result_folder(spec, driver.plan.profile)
    driver.fetch()
    found = runs.locate(spec, driver.store)
    if found is None:
        from pipeline.launch.scheduler import wait_for_others
        from pipeline.launch.single import train_one

        if "DVC_STAGE" in os.environ:
            wait_for_others(driver, [spec])
        status, reason = train_one(driver, spec, in_process=options.in_process)
        if status == "paused":
            print(f"{spec.name}: paused; the same command continues")
            return PAUSED if "DVC_STAGE" in os.environ else 0
        if status != "finished":
            print(f"error: {spec.name}: {reason}", file=sys.stderr)
            return 1
        found = driver.store / spec.folder_name
    run = runs.collect(found, target)
    place = "from the store" if found.is_relative_to(driver.store) else "from published/"
    unverified = "" if run.verified else ", unverified: it has no checksums"
    print(f"{target}: {spec.name} ({run.metrics.test_error:.2f} % test error, {place}{unverified})")
    return 0


def _verify_resume(commands: Commands) -> None:
    command = add_command(
        commands, "verify-resume", _run_verify_resume, "kill a run again and again, and compare it with one left alone"
    )
    command.add_argument("--experiment", default="attention56", help="an experiment of the plan")
    command.add_argument("--kills", type=positive, default=10, metavar="N")
    command.add_argument("--iterations", type=positive, default=60, metavar="N", help="length of the run")
    command.add_argument("--seed", type=int, default=0, help="of the run")
    command.add_argument("--kill-seed", type=int, default=0, help="of the moments of the kills")


def _run_verify_resume(options: argparse.Namespace) -> int:
    from dataclasses import replace
    from shutil import rmtree

    from pipeline.data.arrays import read_manifest
    from pipeline.launch.driver import Driver
    from pipeline.launch.verify_resume import COMPARED, ResumeError, shortened, verify

    driver = Driver(_current_plan(), Path.cwd())
    spec = shortened(driver.plan.run(options.experiment, options.seed).spec, options.iterations)
    execution = replace(driver.execution(spec), folder=driver.store / ".verify-resume" / spec.name)
    for folder in filter(None, (execution.prepared, execution.noisy)):
        read_manifest(folder)  # before processes are begun that need it
    try:
        verify(spec, execution, options.kills, options.kill_seed)
    except ResumeError as error:
        print(f"not equal: {error}", file=sys.stderr)
        return 1
    rmtree(execution.folder)
    print(f"equal bit for bit after {options.kills} kills: {', '.join(COMPARED)}")
    return 0


def _tune(commands: Commands) -> None:
    command = add_command(
        commands, "tune", _run_tune, "search for better settings, on images held out of the training set"
    )
    command.add_argument(
        "--space", default="optimiser", metavar="NAME|FILE", help="what is varied: a file of conf/tune/"
    )
    command.add_argument("--experiment", default="attention56", help="the experiment that is varied")
    command.add_argument("--trials", type=positive, metavar="N", help="trials in all; default: as the space says")
    command.add_argument("--resume", action="store_true", help="continue a search that was interrupted")
    command.add_argument("--max-parallel", type=positive, metavar="N", help="trials at once, at most")


def _run_tune(options: argparse.Namespace) -> int:
    from pipeline.tuning.command import summary, tune

    found, target = tune(
        options.space, options.experiment, options.trials, options.max_parallel, resume=options.resume, root=Path.cwd()
    )
    for progress in found.trials:
        if progress.trial.state == "failed":
            print(f"failed: trial {progress.trial.number}: {progress.trial.reason}", file=sys.stderr)
    print(summary(found, target))
    return int(found.best is None)


COMMANDS = (_plan, _launch, _train, _verify_resume, _tune)
