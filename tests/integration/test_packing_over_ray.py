"""Photographs packed over a Ray cluster of two nodes: the folder is the one that this machine packs alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Clone
from tests.integration.killing import pipeline, started, wait_until
from tests.integration.nodes import two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MINI = "imagenet-mini"
INTERRUPTED, MISTAKE = 130, 2


@pytest.fixture(scope="module")
def fetched(clone: Clone) -> Clone:
    pipeline(clone, "fetch", MINI)
    return clone


@pytest.fixture(scope="module")
def cluster(clone: Clone) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, two_nodes(clone, patch) as address:
        yield address


@pytest.fixture
def prepared(fetched: Clone) -> Path:
    """Where the prepared folder will be: not yet."""
    folder = fetched.root / "data" / "prepared" / MINI
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def first(clone: Clone, split: str) -> Path:
    """The first image of a split."""
    return min((clone.root / "data" / "raw" / MINI / split).rglob("*.JPEG"))


def test_a_packing_over_a_cluster_that_was_interrupted_ends_in_the_same_bytes(
    fetched: Clone, cluster: str, prepared: Path
) -> None:
    fetched.run(sys.executable, "-m", "pipeline", "prepare", MINI, RAY_ADDRESS="")
    here = prepared.rename(fetched.root / "packed-here")
    partial = prepared.with_name(f".{MINI}.partial")
    blocked = first(fetched, "train")
    whole = blocked.read_bytes()
    blocked.unlink()
    os.mkfifo(blocked)  # nobody writes into it: the task that reads it waits, and the other node packs the other shard
    with started(fetched, "prepare", MINI) as driver:
        wait_until(fetched, driver, (partial / "val-00000.json").exists)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(120) == INTERRUPTED
    blocked.unlink()
    blocked.write_bytes(whole)
    packed = (partial / "val-00000.bin").stat().st_ino
    assert not prepared.exists() and not (partial / "train-00000.json").exists()

    pipeline(fetched, "prepare", MINI)
    assert content(prepared) == content(here)
    assert (prepared / "val-00000.bin").stat().st_ino == packed, "what was packed was packed again"
    assert not partial.exists()


def test_broken_files_of_all_shards_are_named_as_on_one_machine(fetched: Clone, cluster: str, prepared: Path) -> None:
    broken = {path: path.read_bytes() for path in (first(fetched, "train"), first(fetched, "val"))}
    unreadable = fetched.root / "data" / "raw" / MINI / "unreadable.csv"

    def refused(**variables: str) -> tuple[str, bytes]:
        command = (sys.executable, "-m", "pipeline", "prepare", MINI)
        done: subprocess.CompletedProcess[str] = fetched.run(*command, check=False, **variables)
        assert done.returncode == MISTAKE, done.stderr
        return done.stderr.splitlines()[-1], unreadable.read_bytes()

    try:
        for path, whole in broken.items():
            path.write_bytes(whole[:-100])
        here, there = refused(RAY_ADDRESS=""), refused()
    finally:
        for path, whole in broken.items():
            path.write_bytes(whole)
    assert "2 of 1008 images cannot be decoded" in here[0] and all(path.name in here[0] for path in broken)
    assert there == here
