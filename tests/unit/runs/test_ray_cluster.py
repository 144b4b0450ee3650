"""A Ray session: who may talk to it, and a cluster that is not there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import ray_cluster
from pipeline.errors import UserError

ROOT = Path(__file__).parents[3]

LISTENERS = """
import os, psutil
from pathlib import Path
from pipeline import ray_cluster
with ray_cluster.connected(Path.cwd()):
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


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "[::1]:1"])
def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    for name in ray_cluster.ENVIRONMENT:
        monkeypatch.setenv(name, ray_cluster.ENVIRONMENT[name])
    begun = time.monotonic()
    with (
        pytest.raises(UserError, match=r"RAY_ADDRESS = '.*': no Ray cluster answers there"),
        ray_cluster.connected(ROOT),
    ):
        pass
    assert time.monotonic() - begun < 30
