"""Two hosts with a network between them, which is cut in the middle of training: two network namespaces."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.runs.records import CHECKPOINTS, Evaluation, Provenance, read_rows
from tests.integration.conftest import Clone
from tests.integration.killing import few_images, finished, pipeline, settings, started, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 6379
COMPARED = ("config.json", "history.csv", "metrics.json", "responses.json", "masks.npz", "weights.safetensors")


class Hosts:
    """Two namespaces, each with an interface eth0, joined by a cable."""

    def __init__(self) -> None:
        self.names = tuple(f"ran{os.getpid()}{letter}" for letter in "ab")

    def inside(self, host: int, *command: str) -> tuple[str, ...]:
        """A command, to be executed on a host."""
        return ("ip", "netns", "exec", self.names[host], *command)

    def up(self) -> bool:
        """Make them; whether that is possible here."""
        if shutil.which("ip") is None:
            return False
        ends = [f"v{name}" for name in self.names]
        commands = [f"ip netns add {name}" for name in self.names]
        commands.append(f"ip link add {ends[0]} type veth peer name {ends[1]}")
        for name, end, address in zip(self.names, ends, ADDRESSES, strict=True):
            commands.append(f"ip link set {end} netns {name} name eth0")
            commands.append(f"ip -n {name} addr add {address}/24 dev eth0")
            commands += [f"ip -n {name} link set {interface} up" for interface in ("eth0", "lo")]
        return all(subprocess.run(c.split(), capture_output=True, check=False).returncode == 0 for c in commands)

    def cable(self, state: str) -> None:
        """Cut the cable ("down"), or mend it ("up")."""
        subprocess.run(["ip", "-n", self.names[1], "link", "set", "eth0", state], check=True)

    def processes(self, host: int) -> list[psutil.Process]:
        """What runs on a host."""
        command = ["ip", "netns", "pids", self.names[host]]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return [psutil.Process(number) for number in map(int, found.stdout.split()) if psutil.pid_exists(number)]

    def runs(self, host: int, name: str) -> bool:
        """Whether a process whose command line has that name runs on a host."""
        for process in self.processes(host):
            with suppress(psutil.NoSuchProcess):
                if name in " ".join(process.cmdline()):
                    return True
        return False

    def end_all(self, host: int) -> None:
        """Kill everything on a host."""
        for process in self.processes(host):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def down(self) -> None:
        """End everything on them, and remove them."""
        for host, name in enumerate(self.names):
            self.end_all(host)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    made = Hosts()
    try:
        if not made.up():
            pytest.skip("network namespaces cannot be made here")
        variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "GLOO_SOCKET_IFNAME": "eth0",
            "RAY_health_check_period_ms": "1000",  # a lost host is noticed in seconds, not in a minute
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield made
    finally:
        made.down()


def start_ray(hosts: Hosts, host: int) -> None:
    """Make a host a node of the cluster."""
    head = ("--head", f"--port={PORT}", "--include-dashboard=false")
    where = head if host == 0 else (f"--address={ADDRESSES[0]}:{PORT}",)
    ray = str(Path(sys.executable).with_name("ray"))
    command = hosts.inside(host, ray, "start", *where, f"--node-ip-address={ADDRESSES[host]}", "--num-cpus=1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run(clone: Clone) -> Path:
    (folder,) = (clone.root / "runs").glob("attention56-s0-*")
    return folder


def test_a_run_across_two_hosts_outlives_the_network_between_them(
    clone: Clone, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_images(clone)
    settings(clone, iterations=30, milestones=[20, 25])
    path = clone.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["resources"]["workers"] = 2
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    pipeline(clone, "plan")
    pipeline(clone, "train", "attention56")
    undisturbed = run(clone).rename(clone.root / "undisturbed")

    start_ray(hosts, 0)
    start_ray(hosts, 1)
    monkeypatch.setenv("RAY_ADDRESS", f"{ADDRESSES[0]}:{PORT}")
    with started(clone, "train", "attention56", inside=hosts.inside(0)) as driver:
        wait_until(clone, driver, lambda: any((clone.root / "runs").glob(f"attention56-s0-*/{CHECKPOINTS}/[0-9]*")))
        hosts.cable("down")
        wait_until(clone, driver, lambda: not hosts.runs(0, "RayTrainWorker"))  # Ray has given up the other host
        hosts.end_all(1)  # as it would by itself, minutes later
        hosts.cable("up")
        start_ray(hosts, 1)
        finished(clone, driver)

    provenance = Provenance.read(run(clone))
    assert provenance is not None and provenance.status == "finished"
    assert [segment.workers for segment in provenance.segments] == [2, 2]
    assert provenance.segments[1].from_iteration > 0
    assert [row.iteration for row in read_rows(run(clone) / "history.csv", Evaluation)] == [10, 20, 29, 30]
    for name in COMPARED:
        assert (run(clone) / name).read_bytes() == (undisturbed / name).read_bytes(), name
