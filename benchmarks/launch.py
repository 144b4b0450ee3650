"""What many runs at once cost besides their training, against the budgets.

    python -m benchmarks.launch driver              # planning, identities, MLflow and the table for 200 runs: <= 60 s
    python -m benchmarks.launch overhead            # start-up and end of a run under Ray: <= 8 CPU-seconds
    python -m benchmarks.launch steps               # all but the workers while they train: <= 1 % of them
    python -m benchmarks.launch utilisation runs    # of the cores, over the runs of a store: >= 90 %; logging: <= 1 %

The data of the digits profile must be prepared (`dvc repro plan` does it). Nothing of the project is changed.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console

from pipeline.launch.driver import Driver
from pipeline.launch.progress import ProgressTable
from pipeline.launch.scheduler import Summary, pending, run_all
from pipeline.runs.execution import Execution
from pipeline.runs.records import (
    HISTORY,
    MASKS,
    METRICS,
    PROGRESS,
    RESPONSES,
    TIMING,
    Evaluation,
    Provenance,
    Segment,
    Timing,
    write_rows,
)
from pipeline.runs.spec import RunSpec, evaluation_iterations
from pipeline.settings import config
from pipeline.settings.plan import Plan
from pipeline.settings.planning import build_plan
from pipeline.training.environment import device_name
from pipeline.utils.cores import available_cores
from pipeline.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 10  # times the 20 experiments of the profile: 200 runs
SLOTS = 16
FEW, MANY = 2, 6  # runs of two launches, whose difference is the cost of a run
EXPERIMENT = "attention56"
SAMPLE_SECONDS = 0.1
WORKER = "RayTrainWorker"  # in the titles of the processes that train
PAUSE_SECONDS = 60.0  # without any run: between two launches


def report(what: str, value: float, unit: str, budget: str = "") -> None:
    """A row of a Markdown table."""
    print(f"| {what} | {value:.3g} {unit} | {budget} |", flush=True)


@contextmanager
def project(overrides: Sequence[str]) -> Iterator[Path]:
    """A project folder of its own with the digits profile and the data of this one."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "conf", root / "conf")
        (root / "data").symlink_to(ROOT / "data")
        config.compose("digits", list(overrides), root / config.PARAMS, root)
        yield root


# the driver's own work


def pretend(spec: RunSpec, execution: Execution) -> str:
    """Write what a finished run leaves behind, without training."""
    steps = evaluation_iterations(spec)
    rows = [Evaluation(i / 22, i, 0.1, 1.0 / i, 50.0, 1.0, 50.0) for i in steps]
    write_rows(execution.folder / HISTORY, Evaluation, rows)
    write_rows(execution.folder / TIMING, Timing, [Timing(i / 22, i, float(i), 64.0) for i in steps])
    for name in (RESPONSES, MASKS):
        source = next(iter((ROOT / "runs").glob(f"attention56-s0-*/{name}")), None)
        if source:
            shutil.copy(source, execution.folder / name)
        elif name == RESPONSES:
            write_json(execution.folder / name, {"stages": [], "relative": []})
    write_json(execution.folder / METRICS, {"test_error": 50.0, "iterations": steps[-1], "weights_sha256": "0" * 64})
    segment = Segment(
        0, steps[-1], datetime.now().astimezone().isoformat(), 1.0, 64.0, "here", "cpu", 1, 1, {}, None, False, ""
    )
    Provenance("finished", execution.profile, (segment,), execution.mlflow_run_id).write(execution.folder)
    return "finished"


def measure_driver() -> None:
    """Plan 200 runs, begin, follow, show and end them, with training that takes no time."""
    with project([f"seeds=[{','.join(map(str, range(SEEDS)))}]"]) as root:
        totals = [0.0, 0.0]

        def timed(what: str, work: Callable[[], object]) -> object:
            begun = time.perf_counter(), time.process_time()
            result = work()
            seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
            totals[:] = [total + more for total, more in zip(totals, seconds, strict=True)]
            report(f"{what} ({seconds[1]:.1f} CPU-s)", seconds[0], "s")
            return result

        settings = config.load(root / config.PARAMS)
        made = timed("plan, with identities and costs", lambda: build_plan(settings, root / "data"))
        assert isinstance(made, Plan)
        driver = Driver(made, root)
        specs = pending(driver)
        timed("what is pending", lambda: pending(driver))

        def everything() -> None:
            screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
            with driver.tracked(), ProgressTable(len(specs), screen) as table:
                run_all(driver, specs, pretend, SLOTS, table, Summary())

        timed(f"MLflow opened; {len(specs)} runs begun, shown, logged and ended", everything)
        report(f"in all, for {len(specs)} runs ({totals[1]:.1f} CPU-s)", totals[0], "s", "60 s")


# start-up and end of a run


def cpu_seconds(command: Sequence[str], root: Path) -> float:
    """CPU-seconds of a command and of all processes below it, sampled while they live."""
    used: dict[tuple[int, float], float] = {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with psutil.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            for one in [process, *process.children(recursive=True)]:
                try:
                    times = one.cpu_times()
                    used[one.pid, one.create_time()] = times.user + times.system
                except psutil.NoSuchProcess:
                    continue
            time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise SystemExit(process.stderr.read().decode())
    return sum(used.values())


def bare_seconds(root: Path) -> float:
    """CPU-seconds of one such run in a process that has everything loaded already."""
    from pipeline.training.loop import train
    from pipeline.training.session import LocalSession

    driver = Driver(build_plan(config.load(root / config.PARAMS), root / "data"), root)
    taken = []
    for number in range(3):
        spec = driver.plan.run(EXPERIMENT, number).spec
        execution = replace(driver.execution(spec), folder=root / "bare" / str(number))
        execution.folder.mkdir(parents=True)
        begun = time.process_time()
        train(spec, execution, LocalSession())
        taken.append(time.process_time() - begun)
    return min(taken)


def measure_overhead() -> None:
    """Launch a few runs of one step, then more of them: what each run costs beyond its own training."""
    short = ["protocol.iterations=1", "protocol.milestones=[]"]
    found = {}
    for count in (FEW, MANY):
        with project([*short, f"seeds=[{','.join(map(str, range(count)))}]"]) as root:
            found[count] = cpu_seconds([sys.executable, "-m", "pipeline", "launch", "--only", EXPERIMENT], root)
            report(f"launch of {count} runs of one step", found[count], "CPU-s")
            bare = bare_seconds(root) if count == MANY else 0.0
    report("such a run alone, everything loaded", bare, "CPU-s")
    report("start-up and end of a run", (found[MANY] - found[FEW]) / (MANY - FEW) - bare, "CPU-s", "8 CPU-s")


# what goes on beside the steps


def measure_steps() -> None:
    """CPU time of all processes but the workers, over that of the workers, while as many runs train as there are cores.

    A step itself is the same code under Ray Train and in-process, on the same threads.
    """
    cores = available_cores()
    lasting = ["protocol.iterations=200", f"seeds=[{','.join(map(str, range(cores)))}]"]
    with project(lasting) as root, tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "pipeline", "launch", "--only", EXPERIMENT]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with psutil.Popen(command, cwd=root, env=environment, stdout=log, stderr=log) as process:
            samples = list(_samples(process, root / "runs", cores))
        if process.returncode or len(samples) < 2:
            log.seek(0)
            raise SystemExit(log.read().decode())
    used = {key: end - samples[0].get(key, 0.0) for key, end in samples[-1].items()}
    workers = sum(seconds for (name, _), seconds in used.items() if WORKER in name)
    report(f"CPU time of {cores} workers while they train", workers, "CPU-s")
    report("all other processes meanwhile", 100 * (sum(used.values()) - workers) / workers, "% of that", "1 %")


def _samples(process: psutil.Popen, store: Path, runs: int) -> Iterator[dict[tuple[str, int], float]]:
    """CPU-seconds of each process, by its title, from when all runs train until one of them has ended."""
    while process.poll() is None:
        training = len(list(store.glob(f"*/{PROGRESS}"))) == runs
        found = {}
        for one in [process, *process.children(recursive=True)]:
            try:
                times = one.cpu_times()
                found[" ".join(one.cmdline()), one.pid] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        if training:
            yield found
        time.sleep(10 * SAMPLE_SECONDS)


# utilisation of the cores


def measure_utilisation(store: Path) -> None:
    """From the record of the runs of a store: when each began and ended, and on how many threads."""
    from pipeline import runs

    spans = []
    for folder in runs.folders(store):
        provenance = Provenance.read(folder)
        for segment in provenance.segments if provenance else ():
            start = datetime.fromisoformat(segment.started).timestamp()
            spans.append((start, start + segment.seconds, segment.workers * segment.threads))
    if not spans:
        raise SystemExit(f"{store}: holds no runs")
    spans = _last_launch(spans)
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    busy = sum((end - start) * threads for start, end, threads in spans)
    cores = available_cores()
    report(
        f"cores in use by {len(spans)} runs over {last - first:.0f} s", 100 * busy / cores / (last - first), "%", "90 %"
    )
    _measure_logging(busy / len(spans))


def _last_launch(spans: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """What came after the last pause in which nothing ran."""
    launch: list[tuple[float, float, int]] = []
    for span in sorted(spans):
        if launch and span[0] - max(end for _, end, _ in launch) > PAUSE_SECONDS:
            launch = []
        launch.append(span)
    return launch


def _measure_logging(seconds: float) -> None:
    """What MLflow and the samples of the machine add to a run of so many CPU-seconds."""
    from pipeline import tracking
    from pipeline.tracking.system import SHORTEST, sampler

    with project([f"seeds=[{','.join(map(str, range(SEEDS)))}]"]) as root:
        driver = Driver(build_plan(config.load(root / config.PARAMS), root / "data"), root)
        specs = pending(driver)[:20]
        uri = tracking.tracking_uri(root)
        tracking.initialise(uri)
        driver.uri = uri
        begun = time.process_time()
        for spec in specs:
            execution = driver.begin(spec)
            run_id = tracking.open_run(uri, execution.folder, profile="digits")
            pretend(spec, replace(execution, mlflow_run_id=run_id))
            driver.end(execution)
        logged = (time.process_time() - begun) / len(specs)
    sample = sampler()
    begun = time.process_time()
    for _ in range(100):
        sample()
    sampled = (time.process_time() - begun) / 100 * seconds / SHORTEST
    report("logging of a run", 100 * (logged + sampled) / seconds, f"% of its {seconds:.0f} CPU-s", "1 %")


def main() -> None:
    """Measure one of them, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("driver", "overhead", "steps", "utilisation"))
    parser.add_argument("store", nargs="?", type=Path, default=Path("runs"), help="for utilisation")
    options = parser.parse_args()
    import torch

    machine = f"{device_name(torch.device('cpu'))}, {available_cores()} cores, load {os.getloadavg()[0]:.1f} before"
    print(f"On {machine}; PyTorch {torch.__version__}\n")
    print("| what | measured | budget |\n|---|---|---|")
    if options.what == "utilisation":
        measure_utilisation(options.store)
    else:
        {"driver": measure_driver, "overhead": measure_overhead, "steps": measure_steps}[options.what]()


if __name__ == "__main__":
    main()
