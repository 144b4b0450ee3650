"""Does bfloat16 cost accuracy? The same run in both precisions, over several seeds, on the data of the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.runs.execution import Execution
from pipeline.runs.records import METRICS, Metrics
from pipeline.runs.spec import Precision, RunSpec
from pipeline.utils.files import csv_text, write_atomic
from pipeline.utils.statistics import difference, estimate
from pipeline.utils.subprocesses import run_apart

FOLDER: Final = Path("benchmarks") / "precision"
PRECISIONS: Final = ("float32", "bfloat16")
Errors = Mapping[str, Mapping[int, float]]  # test error in percent, by precision and seed


@dataclass(frozen=True)
class Job:
    """One run."""

    spec: RunSpec
    execution: Execution
    device: str


def train_job(job: Job) -> Iterator[float]:
    """Train one run, or continue it, in this process; gives its test error in percent."""
    from pipeline.training.loop import train
    from pipeline.training.session import LocalSession

    job.execution.folder.mkdir(parents=True, exist_ok=True)
    if not (job.execution.folder / METRICS).exists():
        train(job.spec, job.execution, LocalSession(job.device))
    yield Metrics.read(job.execution.folder).test_error


def compare_precisions(
    spec: RunSpec,
    execution: Execution,
    seeds: int,
    device: str,
    at_once: int,
    seconds: float,
    report: Callable[[str], None],
) -> Errors:
    """Train a run with every seed below `seeds` in both precisions, `at_once` at a time, below ``execution.folder``.

    Args:
        seconds: after which one run is given up (TimeoutError).
    """
    errors: dict[str, dict[int, float]] = {precision: {} for precision in PRECISIONS}

    def run(seed: int, precision: Precision) -> None:
        changed = replace(spec, seed=seed, precision=precision)
        folder = execution.folder / f"{changed.name}-{precision}-{changed.identity}"
        (error,) = run_apart(train_job, Job(changed, replace(execution, folder=folder), device), seconds)
        errors[precision][seed] = error
        report(f"{changed.name} in {precision}: {error:.2f} % test error")

    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(run, seed, precision) for seed in range(seeds) for precision in PRECISIONS]:
            done.result()
    return {precision: dict(sorted(by_seed.items())) for precision, by_seed in errors.items()}


def as_markdown(errors: Errors) -> str:
    """A table of means and spreads, and the difference of the pairs with its 95 % interval."""
    lines = ["| precision | test error, mean | standard deviation | seeds |", "|---|---:|---:|---:|"]
    for precision, by_seed in errors.items():
        mean = estimate(list(by_seed.values()))
        lines.append(f"| {precision} | {mean.value:.2f} % | {mean.spread or 0:.2f} | {mean.n} |")
    float32, bfloat16 = (errors[precision] for precision in PRECISIONS)
    effect = difference(bfloat16, float32)
    interval = "" if effect.low is None else f", 95 % interval {effect.low:+.2f} to {effect.high:+.2f}"
    lines += ["", f"bfloat16 less float32, paired by seed: {effect.value:+.2f} points{interval}."]
    return "\n".join(lines)


def write_errors(path: Path, errors: Errors, spec: RunSpec, hardware: str) -> None:
    """Write every error as CSV, atomically."""
    header = ["experiment", "dataset", "iterations", "precision", "seed", "test_error", "hardware"]
    rows = [
        [spec.experiment, spec.data.dataset, spec.protocol.iterations, precision, seed, repr(error), hardware]
        for precision, by_seed in errors.items()
        for seed, error in by_seed.items()
    ]
    write_atomic(path, csv_text(header, rows))
