"""The commands of the command line: each reads its options, calls the stage that does the work, and says what came out.

What a command needs is imported when it runs, so that every command starts quickly.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

DATA, REPORTS = Path("data"), Path("reports")
PAUSED = 75  # EX_TEMPFAIL: inside a DVC stage a paused run leaves the stage pending
MARKER = "launched\n"
Commands = Any  # argparse's own type for subparsers is private


def _command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], help_: str) -> Any:
    command = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    command.set_defaults(run=run)
    return command


def _compose(commands: Commands) -> None:
    command = _command(commands, "compose", _run_compose, "compose a profile from conf/ into params.yaml")
    command.add_argument("profile")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. data.source=/path/to/shards")
    command.add_argument("--override", type=Path, metavar="FILE", help="YAML put over it, e.g. best.yaml of a search")


def _run_compose(options: argparse.Namespace) -> None:
    from pipeline import config

    if options.override:
        from pipeline.tuning.override import read_arguments

        options.overrides = [*read_arguments(options.override), *options.overrides]
    before = Path(config.PARAMS).read_text(encoding="utf-8") if Path(config.PARAMS).exists() else None
    config.compose(options.profile, options.overrides, Path(config.PARAMS))
    same = Path(config.PARAMS).read_text(encoding="utf-8") == before
    print(f"{config.PARAMS}: {'is' if same else 'now holds'} profile {options.profile}")


def _fetch(commands: Commands) -> None:
    command = _command(commands, "fetch", _run_fetch, "get the raw data of a data set and verify them")
    command.add_argument("dataset")
    command.add_argument(
        "--source",
        help="'official' or a local folder (Parquet shards, or a class-folder tree of lossless images);"
        " default: data.source of params.yaml, if it is for this data set, else official",
    )


def _run_fetch(options: argparse.Namespace) -> None:
    from pipeline import data

    source = options.source or _configured_source(options.dataset)
    record = data.fetch(options.dataset, source, DATA)
    print(f"{data.raw_folder(DATA, options.dataset)}: {len(record.files)} files verified ({record.kind})")


def _configured_source(dataset: str) -> str:
    from pipeline import config

    if not Path(config.PARAMS).exists():
        return "official"
    settings = config.load()
    return settings.data.source if settings.data.name == dataset else "official"


def _prepare(commands: Commands) -> None:
    command = _command(commands, "prepare", _run_prepare, "decode a data set once into arrays")
    command.add_argument("dataset")


def _run_prepare(options: argparse.Namespace) -> None:
    from pipeline import data

    manifest = data.prepare(options.dataset, DATA)
    print(
        f"{data.prepared_folder(DATA, options.dataset)}: {manifest['train_images']} training and"
        f" {manifest['test_images']} test images, channel mean {_numbers(manifest['channel_mean'])},"
        f" standard deviation {_numbers(manifest['channel_std'])}"
    )


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.8f}" for value in values)


def _corrupt(commands: Commands) -> None:
    command = _command(commands, "corrupt", _run_corrupt, "draw the noisy training labels of Table 5")
    command.add_argument("dataset")
    command.add_argument("level", type=int, help="noise level in percent, e.g. 30")


def _run_corrupt(options: argparse.Namespace) -> None:
    from pipeline import data

    manifest = data.corrupt(options.dataset, options.level, DATA)
    total = sum(map(sum, manifest["matrix"]))
    print(
        f"{data.noisy_folder(DATA, options.dataset, options.level)}: {manifest['flipped']} of {total} labels changed"
        f" ({100 * manifest['flipped'] / total:.2f} %)"
    )


def _plan(commands: Commands) -> None:
    _command(commands, "plan", _run_plan, "resolve the profile into plan.json: every run, its identity, its cost")


def _run_plan(options: argparse.Namespace) -> None:
    from pipeline import plan

    content = _make_plan()
    names = content["runs"]
    print(f"{plan.PLAN}: {len(names)} runs of profile {content['profile']}")
    print(_outlook(content))


def _make_plan() -> dict[str, Any]:
    """Check the settings, say where they differ from conf/, and write ``plan.json``."""
    from pipeline import config, plan

    settings = config.load()
    drift = config.drift()
    for line in drift:
        print(f"note: {line}", file=sys.stderr)
    if drift:
        print(
            f"note: `make repro PROFILE={settings.profile}` and `dvc exp run -S profile={settings.profile}` would"
            " overwrite these edits of params.yaml; `dvc repro` keeps them",
            file=sys.stderr,
        )
    content = plan.build_plan(settings, DATA)
    plan.write_plan(content)
    return content


def _outlook(content: dict[str, Any]) -> str:
    """What is pending, and what it will cost."""
    from pipeline.driver import Driver
    from pipeline.estimate import outlook
    from pipeline.launch import pending

    driver = Driver(content, Path.cwd())
    return outlook(driver, pending(driver))


def _launch(commands: Commands) -> None:
    command = _command(commands, "launch", _run_launch, "train every pending run of the plan at once")
    command.add_argument("--only", default="*", metavar="PATTERN", help="e.g. 'attention56*' or 'resnet164-s0'")
    command.add_argument("--max-parallel", type=_positive, metavar="N", help="runs at once, at most")
    command.add_argument("--dry-run", action="store_true", help="only say what is pending and what it would cost")
    command.add_argument("--stop-after", type=_minutes, metavar="MIN", help="pause what is not done after MIN minutes")


def _run_launch(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from pipeline import plan
    from pipeline.display import Board
    from pipeline.driver import Driver
    from pipeline.estimate import outlook
    from pipeline.files import write_atomic
    from pipeline.launch import launch, pending
    from pipeline.runs import RESULTS

    in_stage = "DVC_STAGE" in os.environ
    driver = Driver(plan.read_plan() if in_stage else _make_plan(), Path.cwd(), stop_after=options.stop_after)
    if options.max_parallel:
        driver.resources = replace(driver.resources, max_parallel=options.max_parallel)
    specs = pending(driver, options.only)
    print(outlook(driver, specs))
    failed = False
    if specs and not options.dry_run:
        with Board(len(specs)) as board:
            summary = launch(driver, specs, board)
        for name, reason in summary.failed.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
        if summary.paused:
            print(f"paused: {', '.join(summary.paused)}; the same command continues")
        failed = bool(summary.failed)
    if in_stage:
        write_atomic(RESULTS / "launched", MARKER)
        return 0
    return int(failed)


def _train(commands: Commands) -> None:
    command = _command(commands, "train", _run_train, "train one run of the plan, or collect it if it is there")
    command.add_argument("experiment", help="e.g. attention56-nal")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--in-process", action="store_true", help="in this process, without Ray and MLflow")
    command.add_argument("--stop-after", type=_minutes, metavar="MIN", help="pause after MIN minutes")


def _run_train(options: argparse.Namespace) -> int:
    from pipeline import plan, runs
    from pipeline.driver import Driver

    driver = Driver(plan.read_plan(), Path.cwd(), stop_after=options.stop_after)
    spec = plan.find_run(driver.plan, options.experiment, options.seed)
    target = runs.result_folder(spec, driver.plan["profile"])
    found = runs.locate(spec, driver.store)
    if found is None:
        from pipeline.single import train_one

        status, reason = train_one(driver, spec, in_process=options.in_process)
        if status == "paused":
            print(f"{spec.name}: paused; the same command continues")
            return PAUSED if "DVC_STAGE" in os.environ else 0
        if status != "finished":
            print(f"error: {spec.name}: {reason}", file=sys.stderr)
            return 1
        found = driver.store / spec.folder_name
    runs.collect(found, target)
    print(f"{target}: {spec.name} {_from(found, driver)}")
    return 0


def _from(found: Path, driver: Any) -> str:
    from pipeline.files import read_json
    from pipeline.training.records import METRICS

    place = "from the store" if found.is_relative_to(driver.store) else "from published/"
    return f"({read_json(found / METRICS)['test_error']:.2f} % test error, {place})"


def _runs(commands: Commands) -> None:
    command = _command(commands, "runs", _run_list, "list, publish or import runs")
    actions = command.add_subparsers(metavar="list|publish|import", required=True)
    listing = actions.add_parser("list", help="the runs of the plan and how far they are")
    listing.set_defaults(run=_run_list)
    publishing = actions.add_parser("publish", help="copy finished runs, without weights, to published/")
    publishing.add_argument("pattern", help="run names, e.g. 'attention56*'; '*' for all that are finished")
    publishing.set_defaults(run=_run_publish)
    importing = actions.add_parser("import", help="bring runs made elsewhere into the store")
    importing.add_argument("folder", type=Path, help="a run's folder, or one that holds several")
    importing.set_defaults(run=_run_import)


def _run_list(options: argparse.Namespace) -> None:
    from pipeline import plan, runs
    from pipeline.driver import Driver

    driver = Driver(plan.read_plan(), Path.cwd())
    width = max(map(len, driver.plan["runs"]))
    for name in driver.plan["runs"]:
        spec = plan.planned_spec(driver.plan, name)
        print(f"{name:{width}}  {spec.identity}  {runs.status(spec, driver.store)}")


def _run_publish(options: argparse.Namespace) -> int:
    from fnmatch import fnmatchcase

    from pipeline import plan, runs
    from pipeline.driver import Driver

    driver = Driver(plan.read_plan(), Path.cwd())
    specs = [plan.planned_spec(driver.plan, name) for name in driver.plan["runs"] if fnmatchcase(name, options.pattern)]
    done = [spec for spec in specs if runs.finished(driver.store / spec.folder_name, spec.identity)]
    if not done:
        raise UserError(f"{options.pattern!r}: fits no finished run in the store {driver.store}")
    profile = driver.plan["profile"]
    for spec in done:
        print(runs.publish(spec, profile, driver.store))
    plan.write_plan(driver.plan, runs.PUBLISHED / profile / plan.PLAN)
    return 0


def _run_import(options: argparse.Namespace) -> None:
    from pipeline import plan, runs
    from pipeline.driver import Driver

    store = Driver(plan.read_plan(), Path.cwd()).store
    names = runs.import_runs(options.folder, store)
    print("\n".join(f"{store / name}: imported" for name in names) or "nothing new")


def _counts(commands: Commands) -> None:
    _command(commands, "counts", _run_counts, "count parameters and multiply-adds of every network")


def _run_counts(options: argparse.Namespace) -> None:
    from pipeline.counts import write_counts

    for path in write_counts(REPORTS / "counts"):
        print(path)


def _describe(commands: Commands) -> None:
    command = _command(commands, "describe", _run_describe, "print the layers of a network")
    command.add_argument("network", help="a name of models.list_models(), e.g. cifar_attention92")
    command.add_argument("--image-size", type=_positive, metavar="PIXELS", help="default: the paper's")


def _run_describe(options: argparse.Namespace) -> None:
    from pipeline.describe import describe

    try:
        print(describe(options.network, image_size=options.image_size))
    except ValueError as error:
        raise UserError(str(error)) from None


def _report(commands: Commands) -> None:
    command = _command(commands, "report", _run_report, "write the report of a profile from the runs that are there")
    command.add_argument("--profile", help="default: that of plan.json")


def _run_report(options: argparse.Namespace) -> None:
    from pipeline.reporting import write_report

    print(write_report(options.profile, Path.cwd()))


def _trace(commands: Commands) -> None:
    command = _command(commands, "trace", _run_trace, "walk a number of the report back to its runs")
    command.add_argument("cell", help="<table>/<row>/<column>, e.g. table3/attention92/nal")


def _run_trace(options: argparse.Namespace) -> None:
    from pipeline.reporting import trace_cell

    print(trace_cell(options.cell, Path.cwd()))


def _track(commands: Commands) -> None:
    command = _command(commands, "track", _run_track, "rebuild MLflow's view from the files")
    command.add_argument("--sync", action="store_true", required=True, help="log everything that MLflow does not have")


def _run_track(options: argparse.Namespace) -> int:
    from pipeline import plan, runs, tracking
    from pipeline.driver import Driver
    from pipeline.tracking.searches import sync_search
    from pipeline.tuning.trials import searches

    driver = Driver(plan.read_plan(), Path.cwd())
    uri = tracking.tracking_uri(Path.cwd())
    if not tracking.initialise(uri):
        return 1
    published = sorted(path.parent for path in runs.PUBLISHED.glob("*/*/config.json"))
    print(tracking.sync(uri, [*runs.folders(driver.store), *published]))
    for folder in searches(driver.store):
        print(f"{folder}: {sync_search(uri, folder)} trials")
    return 0


def _compare(commands: Commands) -> None:
    _command(commands, "compare", _run_compare, "say whether the report agrees with the committed one")


def _run_compare(options: argparse.Namespace) -> None:
    from pipeline import plan
    from pipeline.compare import compare

    print(compare(plan.read_plan()["profile"], Path.cwd()))


def _ui(commands: Commands) -> None:
    command = _command(commands, "ui", _run_ui, "serve the MLflow UI")
    command.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    command.add_argument("--port", type=_positive, default=5000)


def _run_ui(options: argparse.Namespace) -> int:
    from pipeline.ui import serve

    return serve(Path.cwd(), options.host, options.port)


def _tune(commands: Commands) -> None:
    command = _command(
        commands, "tune", _run_tune, "search for better settings, on images held out of the training set"
    )
    command.add_argument(
        "--space", default="optimiser", metavar="NAME|FILE", help="what is varied: a file of conf/tune/"
    )
    command.add_argument("--experiment", default="attention56", help="the experiment that is varied")
    command.add_argument("--trials", type=_positive, metavar="N", help="trials in all; default: as the space says")
    command.add_argument("--resume", action="store_true", help="continue a search that was interrupted")
    command.add_argument("--max-parallel", type=_positive, metavar="N", help="trials at once, at most")


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


def _doctor(commands: Commands) -> None:
    _command(commands, "doctor", _run_doctor, "say what is wrong with this machine and project, and what to type")


def _run_doctor(options: argparse.Namespace) -> int:
    from pipeline.doctor import examine

    wrong = 0
    for finding in examine(Path.cwd()):
        print(finding, flush=True)
        wrong += not finding.fine
    return int(wrong > 0)


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number above 0")
    return int(text)


def _minutes(text: str) -> float:
    """Minutes on the command line, seconds within."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not (math.isfinite(minutes) and minutes > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of minutes above 0")
    return 60 * minutes


ALL = (
    _compose,
    _fetch,
    _prepare,
    _corrupt,
    _plan,
    _launch,
    _train,
    _runs,
    _counts,
    _describe,
    _report,
    _trace,
    _track,
    _compare,
    _ui,
    _tune,
    _doctor,
)
