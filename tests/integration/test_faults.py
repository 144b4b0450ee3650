"""Real processes, killed in the middle of training: the run goes on, and ends as one that nothing has happened to."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.runs.records import CHECKPOINTS, LOG, Evaluation, Provenance, read_rows
from tests.integration.conftest import Clone
from tests.integration.killing import PATIENCE, few_images, finished, pipeline, settings, started, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

EVALUATED = [10, 20, 29, 30]
COMPARED = ("config.json", "history.csv", "metrics.json", "responses.json", "masks.npz", "weights.safetensors")
# Two nodes that can each take one worker, beside a head that takes none. A line on the standard input loses the node of
# that number, or announces that it will be taken away.
NODES = """
import sys, time
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = {}
def add():
    node = cluster.add_node(num_cpus=1)
    nodes[node.node_id] = node
add(), add()
print(cluster.address, flush=True)
for line in sys.stdin:
    command, node = line.split()
    if command == "kill":
        cluster.remove_node(nodes[node], allow_graceful=False)
    else:
        deadline = int(1000 * (time.time() + 600))
        reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
        GcsClient(address=cluster.address).drain_node(node, reason, "the market wants it back", deadline)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def prepared(clone: Clone) -> Clone:
    few_images(clone)
    return clone


@pytest.fixture(scope="module")
def undisturbed(prepared: Clone) -> Path:
    """The folder of a run that nothing happened to."""
    settings(prepared, iterations=30, milestones=[20, 25])
    pipeline(prepared, "plan")
    pipeline(prepared, "train", "attention56", "--in-process")
    folder = run(prepared).rename(prepared.root / "undisturbed")
    assert [row.iteration for row in read_rows(folder / "history.csv", Evaluation)] == EVALUATED
    return folder


@pytest.fixture
def nodes(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A cluster, which listens on its standard input."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    command = [sys.executable, "-c", NODES]
    cluster = subprocess.Popen(command, env=clone.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert cluster.stdout is not None
        monkeypatch.setenv("RAY_ADDRESS", cluster.stdout.readline().strip())
        yield cluster
    finally:
        cluster.communicate(timeout=120)


def run(clone: Clone) -> Path:
    (folder,) = (clone.root / "runs").glob("attention56-s0-*")
    return folder


def has_checkpoint(clone: Clone) -> bool:
    return any((clone.root / "runs").glob(f"attention56-s0-*/{CHECKPOINTS}/[0-9]*"))


def worker(driver: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that trains."""
    processes = psutil.Process(driver.pid).children(recursive=True)
    (found,) = (process for process in processes if "RayTrainWorker" in " ".join(process.cmdline()))
    return found


def ends_as(folder: Path, undisturbed: Path) -> Provenance:
    """Check a finished run against the one that nothing happened to."""
    provenance = Provenance.read(folder)
    assert provenance is not None and provenance.status == "finished"
    for name in COMPARED:
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    return provenance


def each_point_is_in_mlflow_once(clone: Clone, folder: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    provenance = Provenance.read(folder)
    assert provenance is not None and provenance.mlflow_run_id
    assert client.get_run(provenance.mlflow_run_id).info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(provenance.mlflow_run_id, "test/error")]
    assert steps == list(range(1, len(read_rows(folder / "history.csv", Evaluation)) + 1))


def test_a_killed_worker_is_replaced(prepared: Clone, undisturbed: Path) -> None:
    with started(prepared, "train", "attention56") as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        worker(driver).kill()
        finished(prepared, driver)
    folder = run(prepared)
    provenance = ends_as(folder, undisturbed)
    assert len(provenance.segments) == 2
    assert provenance.segments[1].from_iteration > 0
    each_point_is_in_mlflow_once(prepared, folder)
    shutil.rmtree(folder)


def test_a_worker_that_dies_more_often_than_is_allowed_fails_its_run_and_the_same_command_continues(
    prepared: Clone, undisturbed: Path
) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    tree = yaml.safe_load(before)
    tree["resources"]["max_failures"] = 0
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    pipeline(prepared, "plan")
    with started(prepared, "train", "attention56") as driver:
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        worker(driver).kill()
        assert driver.wait(PATIENCE) == 1
    path.write_text(before)
    pipeline(prepared, "plan")
    provenance = Provenance.read(run(prepared))
    assert provenance is not None and provenance.status == "failed"
    pipeline(prepared, "train", "attention56")
    assert len(ends_as(run(prepared), undisturbed).segments) == 2
    shutil.rmtree(run(prepared))


def test_a_mistake_in_the_settings_is_not_tried_again(prepared: Clone, undisturbed: Path) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    settings(prepared, learning_rate=1e30)
    pipeline(prepared, "plan")
    done = prepared.run(sys.executable, "-m", "pipeline", "train", "attention56", check=False)
    path.write_text(before)
    pipeline(prepared, "plan")
    assert done.returncode == 1
    assert "attention56-s0: the loss is not finite at iteration 10" in done.stderr
    (folder,) = (prepared.root / "runs").glob("attention56-s0-*")
    provenance = Provenance.read(folder)
    assert provenance is not None
    assert len(provenance.segments) == 1
    shutil.rmtree(folder)


def test_train_follows_the_settings_as_they_are_without_a_plan_in_between(prepared: Clone) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    pipeline(prepared, "plan")
    settings(prepared, iterations=10, milestones=[5])
    done = pipeline(prepared, "train", "attention56", "--in-process")
    path.write_text(before)
    assert "note: protocol.iterations: params.yaml has 10, conf/ has 3" in done.stderr
    assert read_rows(run(prepared) / "history.csv", Evaluation)[-1].iteration == 10
    shutil.rmtree(run(prepared))


def test_ctrl_c_takes_a_checkpoint_and_the_same_command_continues(prepared: Clone, undisturbed: Path) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    tree = yaml.safe_load(before)
    tree["checkpoints"]["seconds"] = 3600
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    pipeline(prepared, "plan")
    with started(prepared, "train", "attention56") as driver:
        wait_until(prepared, driver, lambda: any((prepared.root / "runs").glob("attention56-s0-*/progress.json")))
        os.killpg(driver.pid, signal.SIGINT)
        assert driver.wait(PATIENCE) == 130
    assert has_checkpoint(prepared)
    provenance = Provenance.read(run(prepared))
    assert provenance is not None and provenance.status == "paused"
    pipeline(prepared, "train", "attention56")
    path.write_text(before)
    pipeline(prepared, "plan")
    first, second = ends_as(run(prepared), undisturbed).segments
    assert second.from_iteration == first.to_iteration > 0
    shutil.rmtree(run(prepared))


def test_a_full_disk_stops_the_run_in_one_line_and_it_continues_once_there_is_room(
    prepared: Clone, undisturbed: Path
) -> None:
    store = prepared.root / "runs"
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(store)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        done = prepared.run(sys.executable, "-m", "pipeline", "train", "attention56", check=False)
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("error:"))
        assert "No space left on device; once there is room again, the same command continues" in line
        subprocess.run(["mount", "-o", "remount,size=200m", str(store)], check=True)
        pipeline(prepared, "train", "attention56")
        provenance = ends_as(run(prepared), undisturbed)
        assert provenance.segments[-1].from_iteration > 0
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)


@pytest.mark.parametrize("announced", [False, True], ids=["lost", "announced"])
def test_a_lost_node_is_made_up_for_by_another(
    prepared: Clone, undisturbed: Path, nodes: subprocess.Popen[str], announced: bool
) -> None:
    path = prepared.root / "params.yaml"
    before = path.read_text()
    tree = yaml.safe_load(before)
    tree["checkpoints"]["seconds"] = 3600 if announced else 1
    if announced:  # Ray Train looks for notices every few seconds
        tree["protocol"].update(iterations=300, milestones=[200, 250])
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    pipeline(prepared, "plan")
    assert nodes.stdin is not None

    def tell(command: str, node: str) -> None:
        assert nodes.stdin is not None
        nodes.stdin.write(f"{command} {node}\n")
        nodes.stdin.flush()

    with started(prepared, "train", "attention56") as driver:
        wait_until(prepared, driver, lambda: any((prepared.root / "runs").glob("attention56-s0-*/progress.json")))
        node = _node_of_the_worker(psutil.Process(nodes.pid))
        if announced:
            tell("drain", node)
        wait_until(prepared, driver, lambda: has_checkpoint(prepared))
        tell("kill", node)
        finished(prepared, driver)
    folder = run(prepared)
    if announced:
        assert "will be taken away: checkpoint" in (folder / LOG).read_text()
        each_point_is_in_mlflow_once(prepared, folder)
        folder = folder.rename(prepared.root / "announced")
        pipeline(prepared, "train", "attention56", "--in-process")
        undisturbed = run(prepared)
    path.write_text(before)
    provenance = ends_as(folder, undisturbed)
    assert len(provenance.segments) >= 2
    assert provenance.segments[-1].from_iteration > 0
    if announced:
        shutil.rmtree(undisturbed)
    else:
        each_point_is_in_mlflow_once(prepared, folder)
    shutil.rmtree(folder)


def _node_of_the_worker(cluster: psutil.Process) -> str:
    """Ray's name for the node on which the worker runs: its raylet has it on its command line."""
    children = cluster.children(recursive=True)
    (process,) = (child for child in children if "RayTrainWorker" in " ".join(child.cmdline()))
    (command,) = (parent.cmdline() for parent in process.parents() if parent.name() == "raylet")
    (node,) = (word.partition("=")[2] for word in command if word.startswith("--node_id="))
    return node
