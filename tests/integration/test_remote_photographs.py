"""Photographs in an object store: two nodes that do not see the packed folder train from there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.integration.conftest import Clone
from tests.integration.killing import pipeline
from tests.integration.nodes import two_nodes
from tests.s3_server import CREDENTIALS, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MINI = "imagenet-mini"
SHORT = (
    "resources.workers=2",
    "protocol.iterations=2",
    "protocol.milestones=[1]",
    "checkpoints.seconds=3600",
    "tracking.enabled=false",
    "~experiments.attention92",
    "~experiments.resnet152",
)
COMPARED = ("config.json", "history.csv", "metrics.json", "weights.safetensors")


@pytest.fixture
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_nodes_that_do_not_see_the_packed_folder_bring_it_or_are_named(
    clone: Clone, environment: pytest.MonkeyPatch
) -> None:
    for name, value in {**CREDENTIALS, "RESIDUAL_ATTENTION_CACHE": str(clone.root / "cache")}.items():
        environment.setenv(name, value)
    with s3_server() as server, two_nodes(clone, environment):
        pipeline(clone, "compose", MINI, *SHORT)
        pipeline(clone, "fetch", MINI)
        clone.run(sys.executable, "-m", "pipeline", "prepare", MINI, RAY_ADDRESS="")
        pipeline(clone, "plan")
        pipeline(clone, "launch")
        (run,) = (clone.root / "runs").glob("attention56-s0-*")
        straight = run.rename(clone.root / "straight")
        prepared = clone.root / "data" / "prepared" / MINI
        away = clone.root / "away"

        shutil.copytree(prepared, away)
        shutil.rmtree(prepared)
        refused = clone.run(sys.executable, "-m", "pipeline", "launch", check=False)
        assert refused.returncode == 2 and "data.remote" in refused.stderr.splitlines()[-1]
        assert not run.exists(), "something has started"

        away.rename(prepared)
        pipeline(clone, "compose", MINI, *SHORT, f"data.remote='{server.url('datasets')}'")
        told = clone.run(sys.executable, "-m", "pipeline", "prepare", MINI, RAY_ADDRESS="").stdout
        assert "files sent" in told
        pipeline(clone, "plan")
        shutil.rmtree(prepared)
        assert "brought there from" in pipeline(clone, "launch").stderr
        for name in COMPARED:
            assert (run / name).read_bytes() == (straight / name).read_bytes(), name
        (copy,) = (clone.root / "cache").glob(f"{MINI}-*")
        assert (copy / "manifest.json").is_file()
