"""Photographs in an object store: two nodes that do not see the packed folder train from there."""

from __future__ import annotations

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
        pipeline(clone, "train", "attention56")
        (run,) = (clone.root / "runs").glob("attention56-s0-*")
        straight = run.rename(clone.root / "straight")

        prepared = clone.root / "data" / "prepared" / MINI
        away = prepared.rename(clone.root / "away")  # planning looks at it; a stage of DVC takes the plan as it is
        train = (sys.executable, "-m", "pipeline", "train", "attention56")
        refused = clone.run(*train, check=False, DVC_STAGE="train@attention56")
        (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
        assert refused.returncode == 2
        assert line.startswith(f"error: {prepared}: missing on ") and "data.remote" in line
        assert not run.exists(), "something has started"

        away.rename(prepared)
        pipeline(clone, "compose", MINI, *SHORT, f"data.remote='{server.url('datasets')}'")
        told = clone.run(sys.executable, "-m", "pipeline", "prepare", MINI, RAY_ADDRESS="").stdout
        assert "files sent" in told
        pipeline(clone, "plan")
        prepared.rename(away)
        assert "downloaded from" in clone.run(*train, DVC_STAGE="train@attention56").stderr
        for name in COMPARED:
            assert (run / name).read_bytes() == (straight / name).read_bytes(), name
        (copy,) = (clone.root / "cache").glob(f"{MINI}-*")
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
            path.name: path.read_bytes() for path in away.iterdir()
        }
