"""Kill parts of a launch at random moments, start it again, and compare its runs with undisturbed ones.

    python -m tests.integration.random_kills --n 100 --seed 0

`dvc repro` starts a launch of two short runs; one of its processes gets SIGINT, SIGTERM or SIGKILL. The same command is
typed again until both runs have finished; then their files are compared bit by bit, and the next launch begins anew.
Writes its rows into `docs/reliability.md`.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline.launch.verify_resume import differences
from pipeline.runs.records import Provenance
from pipeline.utils.files import write_atomic
from tests.integration.conftest import ROOT, Clone, make_clone
from tests.integration.killing import few_images, pipeline, settings

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- random kills: begin -->", "<!-- random kills: end -->"
COMMAND = ("dvc", "repro", "--force", "--single-item", "launch")
EXPERIMENTS = ("attention56", "attention56-nal")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MARKER = "RANDOM_KILLS"
SECONDS = 30.0  # after the start of a command in which its kill is planned
HANG_SECONDS = 240.0
END_SECONDS = 10.0  # in which all processes end once `launch` has ended
ORPHAN_SECONDS = 40.0  # in which they end without `dvc`: the launch first notices, and takes checkpoints


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


TARGETS: dict[str, Callable[[str], bool]] = {
    "dvc": lambda words: "dvc repro" in words,
    "launch": lambda words: "-m pipeline launch" in words and not words.startswith(("sh ", "/bin/", "bash")),
    "Ray's driver": lambda words: "ray_process" in words,
    "raylet": lambda words: "raylet/raylet " in words,
    "GCS": lambda words: "gcs/gcs_server " in words,
    "worker": lambda words: "RayTrainWorker" in words,
}


@dataclass
class Tally:
    """What the kills have led to."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    launches: int = 0  # that were killed until their runs had finished
    unequal: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    longest: float = 0.0

    @property
    def failures(self) -> list[str]:
        """All that went wrong."""
        return [*self.unequal, *self.left, *self.hangs, *self.running]


def main() -> int:
    """Run the command; its exit status is 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of targets, signals and moments")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no other kill after so long")
    options = parser.parse_args()
    tally, draw = Tally(), random.Random(options.seed)
    stop_at = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "project")
        reference = _undisturbed(clone)
        while tally.kills.total() < options.n and time.monotonic() < stop_at:
            _one_launch(clone, reference, draw, tally, options.n, stop_at)
    rows = "\n".join(_rows(tally, options.seed))
    print(rows)
    _write(rows)
    for failure in tally.failures:
        print(failure, file=sys.stderr)
    return int(bool(tally.failures))


def _undisturbed(clone: Clone) -> Path:
    """Train the runs without kills; return the folder that has them, beside an MLflow store without runs."""
    few_images(clone)
    path = clone.root / "conf" / "profile" / "seconds.yaml"
    lines = [line for line in path.read_text().splitlines() if "resnet164-noise30" not in line]
    path.write_text("\n".join(lines) + "\n")
    pipeline(clone, "compose", "seconds")
    settings(clone, iterations=60, milestones=[40, 50])
    pipeline(clone, "plan")
    reference = clone.root.parent / "undisturbed"
    for experiment in EXPERIMENTS:
        pipeline(clone, "train", experiment, "--in-process")
    (clone.root / "runs").rename(reference)
    shutil.rmtree(clone.root / "results")
    clone.run(sys.executable, "-c", "from pipeline import tracking; tracking.initialise('sqlite:///mlflow.db')")
    shutil.copy(clone.root / "mlflow.db", reference / "mlflow.db")
    return reference


def _one_launch(clone: Clone, reference: Path, draw: random.Random, tally: Tally, wanted: int, stop_at: float) -> None:
    """Start the command again and again until its runs have finished, then compare them and remove them."""
    shutil.copy(reference / "mlflow.db", clone.root / "mlflow.db")
    shutil.rmtree(clone.root / "mlartifacts", ignore_errors=True)
    killed_before = tally.kills.total()
    for _ in range(20):
        if all(_has_finished(folder) for folder in _runs(clone, reference)):
            break
        kill = tally.kills.total() < wanted and time.monotonic() < stop_at
        _one_command(clone, draw if kill else None, tally)
    else:
        tally.hangs.append("a launch did not finish within 20 commands")
    if tally.kills.total() == killed_before:  # it ended before its kill
        shutil.rmtree(clone.root / "runs")
        return
    tally.launches += 1
    for folder in _runs(clone, reference):
        if _has_finished(folder):
            tally.unequal += differences(reference / folder.name, folder)
    tally.running += _running_in_mlflow(clone)
    shutil.rmtree(clone.root / "runs")


def _runs(clone: Clone, reference: Path) -> list[Path]:
    return [clone.root / "runs" / path.name for path in sorted(reference.glob("*-s0-*"))]


def _has_finished(folder: Path) -> bool:
    provenance = Provenance.read(folder) if folder.exists() else None
    return provenance is not None and provenance.status == "finished"


def _one_command(clone: Clone, draw: random.Random | None, tally: Tally) -> None:
    """Run the command to its end; with a generator of random numbers, one of its processes is killed."""
    token = secrets.token_hex(8)
    target, number = (draw.choice(list(TARGETS)), draw.choice(SIGNALS)) if draw else ("", signal.SIGKILL)
    moment = draw.uniform(0, SECONDS) if draw else 0.0
    log = clone.root / "command.log"
    with log.open("w") as file:
        command = subprocess.Popen(
            COMMAND,
            cwd=clone.root,
            env=clone.environment | {MARKER: token},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    begun = time.monotonic()
    what = f"{target} by {number.name} after {moment:.1f} s"
    killed = False
    while command.poll() is None and time.monotonic() - begun < HANG_SECONDS:
        if draw and not killed and time.monotonic() - begun >= moment:
            found = [process for process in _processes(token) if TARGETS[target](_words(process))]
            if found:
                draw.choice(found).send_signal(number)
                killed = True
        time.sleep(0.1)
    if command.poll() is None:
        tally.hangs.append(f"{what}: {log.read_text()[-500:]}")
        _kill(token)
    elif killed or draw is None:
        ended = time.monotonic()
        limit = ORPHAN_SECONDS if target == "dvc" else END_SECONDS
        while (left := list(_processes(token))) and time.monotonic() - ended < limit:
            time.sleep(0.1)
        tally.longest = max(tally.longest, time.monotonic() - ended)
        if left:
            tally.left.append(f"{what}: {[_words(process)[:80] for process in left]}")
            _kill(token)
    command.wait()
    if killed:
        tally.kills[target, number.name] += 1
        status = command.returncode
        print(f"{tally.kills.total()}: {what}: status {status}, {time.monotonic() - begun:.0f} s", flush=True)
        said = [line for line in log.read_text().splitlines() if "Traceback" in line or "*** SIG" in line]
        if said:
            tally.unequal.append(f"{what}: {log.read_text()[-2000:]}")


def _processes(token: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == token and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


def _kill(token: str) -> None:
    for process in _processes(token):
        process.kill()


def _running_in_mlflow(clone: Clone) -> list[str]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(ids)
    return [f"MLflow: {run.info.run_name} is {run.info.status}" for run in found if run.info.status == "RUNNING"]


def _rows(tally: Tally, seed: int) -> Iterator[str]:
    yield f"{tally.kills.total()} kills (seed {seed}) in {tally.launches} launches of {len(EXPERIMENTS)} runs each."
    yield ""
    yield f"| killed | {' | '.join(number.name for number in SIGNALS)} |"
    yield f"|---|{'---|' * len(SIGNALS)}"
    for target in TARGETS:
        yield f"| {target} | {' | '.join(str(tally.kills[target, number.name]) for number in SIGNALS)} |"
    yield ""
    yield "| what | number |"
    yield "|---|---|"
    yield f"| files that differ from those of an undisturbed run | {len(tally.unequal)} |"
    yield f"| commands that did not end within {HANG_SECONDS:.0f} s | {len(tally.hangs)} |"
    yield (
        f"| commands with a process left {END_SECONDS:.0f} s after their end ({ORPHAN_SECONDS:.0f} s where `dvc` was"
        f" killed) | {len(tally.left)} |"
    )
    yield f"| MLflow runs left RUNNING | {len(tally.running)} |"
    yield f"| longest time until the last process had ended | {tally.longest:.1f} s |"


def _write(rows: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    write_atomic(PAGE, f"{before}{BEGIN}\n\n{rows}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    sys.exit(main())
