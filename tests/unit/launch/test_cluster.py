"""A Ray session: who may talk to it, and a cluster that is not there."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.launch import cluster, placement
from pipeline.launch.placement import Share
from pipeline.utils.errors import UserError
from tests.plans import RESOURCES

ROOT = Path(__file__).parents[3]

LISTENERS = """
import os, psutil
from pathlib import Path
from pipeline.launch import cluster
with cluster.connected(Path.cwd()):
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    found = [c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in own]
    print(len(found) > 3, *sorted(set(found)))
    from ray._raylet import AuthenticationMode, get_authentication_mode
    print(get_authentication_mode() == AuthenticationMode.TOKEN)
"""


@pytest.mark.slow
def test_a_session_of_this_machine_listens_on_loopback_alone_and_asks_for_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    several, *addresses = done.stdout.splitlines()[0].split()
    assert several == "True"
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    assert done.stdout.splitlines()[1] == "True"


def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "foo")
    with pytest.raises(UserError, match="RAY_ADDRESS = 'foo': "), cluster.connected(ROOT):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "[::1]:1"])
def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    for name in cluster.ENVIRONMENT:
        monkeypatch.setenv(name, cluster.ENVIRONMENT[name])
    begun = time.monotonic()
    with (
        pytest.raises(UserError, match=r"RAY_ADDRESS = '.*': no Ray cluster answers there"),
        cluster.connected(ROOT),
    ):
        pass
    assert time.monotonic() - begun < 30


CORES = {"CPU": 4.0, "memory": 1e9}
GPU, GPUS = {**CORES, "GPU": 1.0}, {"CPU": 16.0, "GPU": 4.0}
HEAD = {"memory": 1e9}  # started with no cores of its own


@pytest.mark.parametrize(
    ("nodes", "given", "slots"),
    [
        ([CORES], {}, 4),
        ([CORES, CORES], {"threads": 3}, 2),  # 8 cores, and room for one worker on each node
        ([HEAD, CORES], {"threads": 4}, 1),
        ([GPU, GPU], {}, 8),  # a quarter of a GPU each
        ([GPU, CORES], {}, 4),
        ([GPU, GPU], {"gpus": 1}, 2),
        ([GPUS], {"gpus": 2}, 2),
        ([GPUS], {"gpus": 0.6}, 4),  # six would need parts of two GPUs
        ([GPUS], {"gpus": 0.1, "threads": 2}, 8),
        ([CORES, CORES], {"workers": 8}, 1),  # across both nodes
        ([CORES, CORES], {"workers": 3}, 2),
        ([CORES, CORES], {"workers": 2, "threads": 3}, 1),
        ([GPU, GPU], {"workers": 2}, 1),  # a whole GPU each
        ([CORES], {"max_parallel": 3}, 3),
    ],
)
def test_as_many_runs_go_at_once_as_the_nodes_can_hold(
    nodes: list[dict[str, float]], given: dict[str, float], slots: int
) -> None:
    resources = replace(RESOURCES, **given)
    assert placement.parallel_on(nodes, resources, placement.share_of(nodes, resources)) == slots


@pytest.mark.parametrize(
    ("nodes", "given", "complaint"),
    [
        ([CORES, CORES], {"threads": 8}, "resources.threads = 8: must be at most 4, no node of the cluster has more"),
        ([GPU, GPU], {"gpus": 2}, "resources.gpus = 2: must be at most 1, no node of the cluster has more"),
        ([CORES], {"gpus": 0.5}, "resources.gpus = 0.5: must be at most 0,"),
        ([GPU, {"CPU": 64.0}], {"threads": 8, "gpus": 1}, "threads = 8: must be at most 4, no node with 1 GPU has"),
        ([CORES, CORES], {"workers": 3, "threads": 3}, "workers = 3: must be at most 2, .* with 3 threads each"),
        ([GPUS], {"workers": 5, "gpus": 0.6}, "resources.workers = 5: must be at most 4, .* 1 thread and 0.6 GPU each"),
    ],
)
def test_what_no_node_can_hold_is_refused_in_one_line(
    nodes: list[dict[str, float]], given: dict[str, float], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as refused:
        placement.share_of(nodes, replace(RESOURCES, **given))
    assert "\n" not in str(refused.value)


def test_only_nodes_that_can_hold_a_worker_are_asked_for_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeManagerAddress": f"10.0.0.{k}", "Resources": has} for k, has in enumerate((HEAD, CORES, GPU, GPUS))]
    monkeypatch.setattr(placement, "_nodes_that_deny", lambda asked, *_: [node["NodeManagerAddress"] for node in asked])

    def without(worker_resources: Share) -> list[str]:
        return placement.nodes_without(Path("/data/prepared/imagenet"), "c" * 64, worker_resources)

    monkeypatch.setattr(placement, "_alive", lambda: nodes)
    assert without(Share(1, 0.0)) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert without(Share(8, 1.0)) == ["10.0.0.3"]
    monkeypatch.setattr(placement, "_alive", lambda: nodes[2:3])
    assert without(Share(1, 0.0)) == []


def test_a_search_that_another_node_does_not_see_is_told_where_its_folder_must_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "_nodes_without_store", lambda *store: ["10.0.0.2"])
    folder = Path("/project/runs/.copies-0123abcd/tune/digits-optimiser")
    with pytest.raises(UserError) as refused:
        placement.check_search_shared(folder, "s3://bucket/runs")
    line = str(refused.value)
    assert line.startswith(f"store = 's3://bucket/runs': a search keeps its trials in {folder}, not seen from 10.0.0.2")
    assert "shared folder" in line and "object store" not in line and "\n" not in line
    monkeypatch.setattr(placement, "_nodes_without_store", lambda *store: [])
    placement.check_search_shared(folder, "s3://bucket/runs")
