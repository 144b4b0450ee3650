"""Real Ray Train runs of the real network, with one worker and with two."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.runs.records import Evaluation, Provenance, read_rows
from tests.integration.conftest import Clone

pytestmark = pytest.mark.timeout(1200)


def settings(clone: Clone, **resources: int) -> None:
    path = clone.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["resources"].update(resources)
    tree["tracking"]["enabled"] = False
    tree["protocol"].update(iterations=20, milestones=[15], learning_rate=1e-7)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def train(clone: Clone, *arguments: str) -> Path:
    command = (sys.executable, "-m", "pipeline")
    clone.run(*command, "plan")
    clone.run(*command, "train", "attention56", *arguments)
    (folder,) = (clone.root / "runs").glob("attention56-s0-*")
    return folder.rename(clone.root / f"run{len(list(clone.root.glob('run[0-9]')))}")


def test_two_workers_train_as_one_does_and_ray_as_this_process_does(clone: Clone) -> None:
    for dataset in ("fetch", "prepare"):
        clone.run(sys.executable, "-m", "pipeline", dataset, "digits")
    clone.run(sys.executable, "-m", "pipeline", "corrupt", "digits", "30")
    settings(clone, workers=1)
    alone, under_ray = train(clone, "--in-process"), train(clone)
    settings(clone, workers=2)
    together = train(clone)

    for name in ("config.json", "history.csv", "metrics.json", "weights.safetensors"):
        assert (alone / name).read_bytes() == (under_ray / name).read_bytes(), name
    provenance = Provenance.read(together)
    assert provenance is not None
    assert [segment.workers for segment in provenance.segments] == [2]
    assert json.loads((together / "config.json").read_text()) == json.loads((alone / "config.json").read_text())
    (one,), (two,) = (read_rows(folder / "history.csv", Evaluation) for folder in (alone, together))
    # The mean loss of the 20 batches, at a rate that leaves the weights nearly alone (the first steps of such a network
    # are chaotic in single precision): other batches, crops or batch-norm groups would be off by a hundredth.
    assert two.train_loss == pytest.approx(one.train_loss, abs=1e-5)
    assert two.test_loss == pytest.approx(one.test_loss, rel=1e-3)


def test_a_request_that_the_machine_can_never_satisfy_is_refused_before_anything_starts(clone: Clone) -> None:
    settings(clone, workers=16)
    clone.run(sys.executable, "-m", "pipeline", "plan")
    done = clone.run(sys.executable, "-m", "pipeline", "launch", check=False)
    assert done.returncode == 2
    assert "error: resources.workers = 16: must be at most" in done.stderr
