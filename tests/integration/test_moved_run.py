"""A run that is paused, carried to a machine without Ray, MLflow, DVC and pydantic, finished there, and imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.records import Provenance
from tests.integration.conftest import ROOT, Clone
from tests.integration.killing import few_images, pipeline, settings

LARGEST = 16 * 2**20  # bytes of a file that moves
# `python -m pipeline` where packages are missing
BARE = """\
import runpy, sys

ABSENT = {"ray", "mlflow", "dvc", "hydra", "omegaconf", "pydantic", "annotated_types", "yaml", "tenacity", "scipy",
          "matplotlib", "sqlalchemy", "optuna"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["pipeline", *sys.argv[1:]]
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


def bare(machine: Path, *arguments: str) -> str:
    """Run a command of the pipeline in a folder that has the code, the plan and the arrays, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], cwd=machine, text=True, capture_output=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_paused_run_is_finished_elsewhere_and_comes_back_as_if_it_had_never_moved(
    clone: Clone, tmp_path: Path
) -> None:
    few_images(clone)
    settings(clone, iterations=200, milestones=[120])
    pipeline(clone, "plan")
    paused = pipeline(clone, "train", "attention56", "--in-process", "--stop-after", "0.15")
    assert "paused" in paused.stdout + paused.stderr
    (run,) = (clone.root / "runs").glob("attention56-s0-*")
    assert all(file.stat().st_size < LARGEST for file in run.rglob("*"))

    machine = tmp_path / "machine"
    for name in ("models", "pipeline", "plan.json", "data/prepared"):
        source = ROOT / name if name in ("models", "pipeline") else clone.root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, machine / name)
    shutil.move(run, machine / "runs" / run.name)
    bare(machine, "train", "attention56", "--in-process")

    pipeline(clone, "train", "attention56")  # under Ray, from its beginning
    straight = run.rename(tmp_path / "straight")
    pipeline(clone, "runs", "import", str(machine / "runs"))
    for name in ("config.json", "history.csv", "metrics.json", "weights.safetensors"):
        assert (run / name).read_bytes() == (straight / name).read_bytes(), name
    provenance = Provenance.read(run)
    assert provenance is not None and provenance.status == "finished"
    before, after = provenance.segments
    assert 0 == before.from_iteration < before.to_iteration == after.from_iteration < after.to_iteration == 200
