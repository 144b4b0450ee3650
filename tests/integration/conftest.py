"""A clone of this working tree in an empty folder, as a newcomer would have it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SECONDS = """\
# @package _global_
defaults:
  - /protocol: cifar

profile: seconds
label:
  standin: true
  schedule: short
  statement: A test of seconds; these numbers do not reproduce the paper's.
data: { name: digits, source: official, noise_levels: [30] }
experiments:
  attention56: { network: cifar_attention56 }
  attention56-nal: { network: cifar_attention56, options: { learning: nal } }
  resnet164-noise30: { network: cifar_preresnet164, noise: 30 }
seeds: [0]
protocol: { iterations: 3, batch_size: 16, milestones: [2], padding: 2, flip: false, batch_norm_group: 16 }
precision: float32
channels_last: true
compile: false
"""


@dataclass(frozen=True)
class Clone:
    """A checkout of the project in a folder of its own."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of an activated virtual environment."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "PYTEST", "GIT_"))}
        return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "PYTHONPATH": ""}

    def run(self, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user would, in an activated virtual environment."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**self.environment, **variables},
            text=True,
            capture_output=True,
            timeout=1200,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def repro(self, *arguments: str) -> list[str]:
        """`dvc repro`; the names of the stages that ran."""
        out = self.run("dvc", "repro", *arguments).stdout
        return [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")]


def make_clone(root: Path) -> Clone:
    """Clone the project into a folder, with a profile that trains three runs in seconds."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (root / "conf" / "profile" / "seconds.yaml").write_text(SECONDS)
    made = Clone(root)
    made.run("git", "init", "-q")
    made.run(sys.executable, "-m", "pipeline", "compose", "seconds")
    made.run("git", "add", "-A")
    made.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "a clone")
    return made


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone whose profile trains three runs in seconds."""
    root = tmp_path_factory.mktemp("clone") / "project"
    yield make_clone(root)
    shutil.rmtree(root, ignore_errors=True)
