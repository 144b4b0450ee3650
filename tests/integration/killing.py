"""What the tests have in common that kill a driver in the middle: few data, many checkpoints, and the kill itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from numpy.typing import NDArray

from pipeline.data.arrays import load, read_manifest, write_arrays
from pipeline.data.preparation import statistics
from tests.integration.conftest import Clone

TRAIN, TEST = 154, 40  # images that stay
PATIENCE = 480  # seconds


def pipeline(clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the pipeline to its end."""
    return clone.run(sys.executable, "-m", "pipeline", *arguments)


def few_images(clone: Clone) -> None:
    """Prepare digits, and keep so few of them that an epoch is a matter of seconds."""
    pipeline(clone, "fetch", "digits")
    pipeline(clone, "prepare", "digits")
    folder = clone.root / "data" / "prepared" / "digits"
    arrays, manifest = load(folder), read_manifest(folder)
    mean, channel_mean, channel_std = statistics(arrays.train_images[:TRAIN])
    changed = {"train_images": TRAIN, "test_images": TEST, "channel_mean": channel_mean, "channel_std": channel_std}
    kept: dict[str, NDArray[Any]] = {
        "train_images": arrays.train_images[:TRAIN].copy(),
        "train_labels": arrays.train_labels[:TRAIN].copy(),
        "test_images": arrays.test_images[:TEST].copy(),
        "test_labels": arrays.test_labels[:TEST].copy(),
        "mean": mean,
    }
    write_arrays(folder, kept, {**{k: v for k, v in manifest.items() if k not in ("checksum", "files")}, **changed})
    pipeline(clone, "corrupt", "digits", "30")


def settings(clone: Clone, **protocol: object) -> None:
    """Change the protocol, and take a checkpoint every second."""
    path = clone.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["protocol"].update(protocol)
    tree["checkpoints"]["seconds"] = 1
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


@contextmanager
def started(clone: Clone, *arguments: str, inside: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command of the pipeline, its output in ``command.log``; it is killed where the block ends before it.

    Args:
        inside: a command that executes the one behind it elsewhere.
    """
    with (clone.root / "command.log").open("w") as file:
        driver = subprocess.Popen(
            [*inside, sys.executable, "-m", "pipeline", *arguments],
            cwd=clone.root,
            env=clone.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def wait_until(clone: Clone, driver: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait for something that must happen while a started command runs."""
    log = clone.root / "command.log"
    _wait(lambda: condition() or driver.poll() is not None, log)
    assert driver.poll() is None, f"ended before:\n{log.read_text()}"


def finished(clone: Clone, driver: subprocess.Popen[bytes]) -> str:
    """Wait for a started command to succeed; what it has said."""
    log = clone.root / "command.log"
    _wait(lambda: driver.poll() is not None, log)
    assert driver.returncode == 0, log.read_text()
    return log.read_text()


def kill_when(clone: Clone, ready: Callable[[], bool], *arguments: str) -> None:
    """Start a command of the pipeline, and kill its driver, and nothing else, once `ready` says so.

    All of the processes that it has started must then end by themselves.
    """
    with started(clone, *arguments) as driver:
        wait_until(clone, driver, ready)
        children = psutil.Process(driver.pid).children(recursive=True)
    assert children
    _wait(
        lambda: not any(child.is_running() and child.status() != "zombie" for child in children),
        clone.root / "command.log",
    )


def _wait(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in {PATIENCE} s:\n{log.read_text()}"
        time.sleep(0.5)
