"""A Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.conftest import Clone

# One core on each node: two workers, or two tasks, can only be on two nodes.
NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def two_nodes(clone: Clone, environment: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that asks for a token; `environment` gets both."""
    environment.setenv("RAY_AUTH_MODE", "token")
    environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES], env=clone.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert nodes.stdout is not None
        address = nodes.stdout.readline().strip()
        assert address, "Ray did not start"
        environment.setenv("RAY_ADDRESS", address)
        yield address
    finally:
        nodes.communicate(timeout=120)
