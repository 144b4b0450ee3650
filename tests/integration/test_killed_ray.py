"""Parts of Ray, the command and `dvc`, killed while a run trains; and all that Ray needs to start."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.launch.cluster import SEVERAL_MACHINES
from pipeline.runs.records import CHECKPOINTS, DETERMINISTIC, WEIGHTS, Provenance
from tests.integration.conftest import Clone
from tests.integration.killing import PATIENCE, few_images, finished, pipeline, settings, started, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

LAUNCH = ("launch", "--only", "attention56")
PARTS: dict[str, Callable[[str], bool]] = {
    "raylet": lambda words: "raylet/raylet " in words,
    "GCS": lambda words: "gcs/gcs_server " in words,
    "process that runs Ray": lambda words: "ray_process" in words,
}
TASK = """
from pathlib import Path
from pipeline.launch import placement
from pipeline.launch.ray_process import RayProcess
with RayProcess(Path.cwd()) as process:
    process.call(placement.run_task)
print("a task ran")
"""


@pytest.fixture(scope="module")
def prepared(clone: Clone) -> Clone:
    few_images(clone)
    settings(clone, iterations=60, milestones=[40, 50])
    pipeline(clone, "plan")
    return clone


@pytest.fixture(scope="module")
def undisturbed(prepared: Clone) -> Path:
    """The folder of a run that was not disturbed."""
    pipeline(prepared, "train", "attention56", "--in-process")
    return run(prepared).rename(prepared.root / "undisturbed")


@pytest.fixture(autouse=True)
def no_runs(clone: Clone) -> None:
    shutil.rmtree(clone.root / "runs", ignore_errors=True)


def run(clone: Clone) -> Path:
    (folder,) = (clone.root / "runs").glob("attention56-s0-*")
    return folder


def has_checkpoint(clone: Clone) -> bool:
    return any((clone.root / "runs").glob(f"attention56-s0-*/{CHECKPOINTS}/[0-9]*"))


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def part(driver: subprocess.Popen[bytes], name: str) -> psutil.Process:
    (found,) = (process for process in below(driver) if PARTS[name](" ".join(process.cmdline())))
    return found


def end_within(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def assert_equal(clone: Clone, undisturbed: Path) -> Provenance:
    provenance = Provenance.read(run(clone))
    assert provenance is not None and provenance.status == "finished"
    for name in (*DETERMINISTIC, WEIGHTS):
        assert (run(clone) / name).read_bytes() == (undisturbed / name).read_bytes(), name
    return provenance


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_ray_that_is_killed_is_started_again_and_the_run_ends_bit_equal(
    prepared: Clone, undisturbed: Path, name: str
) -> None:
    line = f"the {name}{' of Ray' if name != 'process that runs Ray' else ''} was killed by SIGKILL: Ray starts again"
    log = prepared.root / "command.log"
    with started(prepared, *LAUNCH) as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        processes = [process for process in below(driver) if "python -m" not in " ".join(process.cmdline())]
        part(driver, name).kill()
        killed = time.monotonic()
        wait_until(prepared, driver, lambda: line in log.read_text())
        assert time.monotonic() - killed < 15
        assert end_within(processes, 10)
        text = finished(prepared, driver)
    assert text.count("Ray starts again (1 of 2)") == 1 and "Traceback" not in text
    assert len(assert_equal(prepared, undisturbed).segments) == 2


def test_ray_that_dies_more_often_than_allowed_ends_the_launch_with_status_1_and_the_same_command_continues(
    prepared: Clone, undisturbed: Path
) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("max_failures: 2", "max_failures: 0"))
    with started(prepared, *LAUNCH) as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        processes = below(driver)
        part(driver, "raylet").kill()
        assert driver.wait(60) == 1
        assert end_within(processes, 10)
    text = (prepared.root / "command.log").read_text()
    assert "the raylet of Ray was killed by SIGKILL; resources.max_failures = 0 allows no more of that" in text
    path.write_text(before)
    pipeline(prepared, *LAUNCH)
    assert_equal(prepared, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_running_when_launch_is_killed(prepared: Clone, number: signal.Signals) -> None:
    with started(prepared, *LAUNCH) as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        processes = below(driver)
        driver.send_signal(number)
        status = driver.wait(PATIENCE)
        assert end_within(processes, 10)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        provenance = Provenance.read(run(prepared))
        assert provenance is not None and provenance.status == "paused"


def test_a_signal_while_ray_starts_is_one_line_and_nothing_is_left_running(prepared: Clone) -> None:
    with started(prepared, *LAUNCH) as driver:
        wait_until(prepared, driver, lambda: any("gcs_server" in process.name() for process in below(driver)))
        processes = below(driver)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 143
        assert end_within(processes, 10)
    *_, last = (prepared.root / "command.log").read_text().splitlines()
    assert last == "interrupted; the same command continues"
    assert "***" not in (prepared.root / "command.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_launch_whose_dvc_is_killed_takes_a_checkpoint_and_ends_and_a_second_repro_waits_for_it(
    prepared: Clone, undisturbed: Path, number: signal.Signals
) -> None:
    command = ("dvc", "repro", "--force", "--single-item", "launch", "--quiet")
    path = prepared.root / "command.log"
    with path.open("w") as log:
        dvc = subprocess.Popen(
            command, cwd=prepared.root, env=prepared.environment, stdout=log, stderr=log, start_new_session=True
        )
        wait_until(prepared, dvc, lambda: has_checkpoint(prepared))
        processes = below(dvc)
        dvc.send_signal(number)
        dvc.wait(10)
        second = prepared.run(*command)
    assert "is being trained by process" in second.stderr + second.stdout
    assert end_within(processes, 1)
    assert "stopping: every run takes a checkpoint first" in path.read_text()
    first, *_, last = assert_equal(prepared, undisturbed).segments
    assert first.to_iteration == last.from_iteration > 0  # no iteration was trained twice


def listening(process: subprocess.Popen[bytes]) -> list[str]:
    """Return the addresses at which a process and those below it wait for connections."""
    pids = {process.pid, *(child.pid for child in below(process))}
    found = [c.laddr.ip for c in psutil.net_connections("inet") if c.pid in pids and not c.raddr]
    return [address.removeprefix("::ffff:") for address in found]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_launch_listens_on_loopback_alone(prepared: Clone, workers: int) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("workers: 1", f"workers: {workers}"))
    with started(prepared, *LAUNCH) as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        trained = [process for process in below(driver) if "RayTrainWorker" in " ".join(process.cmdline())]
        addresses = listening(driver)
    path.write_text(before)
    assert len(trained) == workers
    assert len(addresses) > 3 and set(addresses) <= {"127.0.0.1", "::1"}


def test_the_mlflow_ui_listens_on_loopback_alone(prepared: Clone) -> None:
    with started(prepared, "ui", "--port", "5987") as server:
        wait_until(prepared, server, lambda: "127.0.0.1" in listening(server))
        time.sleep(5)
        assert set(listening(server)) == {"127.0.0.1"}
        processes = below(server)
        server.terminate()
        server.wait(30)
        assert end_within(processes, 10)


def test_a_worker_that_does_not_start_is_one_line_with_its_cause(prepared: Clone) -> None:
    hook = prepared.root / "sitecustomize.py"
    hook.write_text("import sys\nif 'default_worker.py' in str(sys.orig_argv): sys.exit('no room for a worker')\n")
    begun = time.monotonic()
    done = prepared.run(sys.executable, "-m", "pipeline", *LAUNCH, check=False)
    seconds = time.monotonic() - begun
    hook.unlink()
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("failed:"))
    assert "had room, but did not start within" in line and "no room for a worker" in line
    assert seconds < 150  # 60 s, the start of Ray, and what the machine does besides


def test_ray_runs_tasks_in_a_project_whose_path_has_odd_characters(prepared: Clone, tmp_path: Path) -> None:
    root = tmp_path / "a b&c(d);e?f'g$h%i"
    shutil.copytree(prepared.root, root, ignore=shutil.ignore_patterns("runs", "mlflow.db"))
    (root / ".venv").symlink_to(sys.prefix)
    done = Clone(root).run(str(root / ".venv" / "bin" / "python"), "-c", TASK)
    assert done.stdout == "a task ran\n"


def test_ray_runs_tasks_where_the_temporary_folder_has_a_long_path(prepared: Clone, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    assert prepared.run(sys.executable, "-c", TASK, TMPDIR=str(folder)).stdout == "a task ran\n"


def test_ray_runs_tasks_under_uv_run(prepared: Clone) -> None:
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not installed here")
    command = [str(uv), "run", "--no-project", "--offline", "--", sys.executable, "-c", TASK]
    assert prepared.run(*command).stdout == "a task ran\n"


def test_ray_asks_for_a_token(prepared: Clone) -> None:
    with started(prepared, *LAUNCH) as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        (port,) = (c.laddr.port for c in part(driver, "GCS").net_connections("tcp") if c.status == "LISTEN")
        code = f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); print('connected')"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        environment = {**prepared.environment, **token, SEVERAL_MACHINES: "0"}  # the asker, too, stays on loopback
        command = [sys.executable, "-c", code]
        with (prepared.root / "asked.log").open("w") as log:
            asked = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            asked.wait(60)  # it tries for minutes; a connection takes seconds
        except subprocess.TimeoutExpired:
            asked.kill()
    text = (prepared.root / "asked.log").read_text()
    assert "connected" not in text.splitlines() and ("UNAUTHENTICATED" in text.upper() or "token" in text)
