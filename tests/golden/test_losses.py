"""Golden losses: the first 20 training losses of three networks.

`python -m tests.golden.test_losses` writes them anew, after NUMERICS was raised.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import data
from pipeline.training.execution import Execution
from pipeline.training.loop import Worker
from pipeline.training.numerics import NUMERICS
from pipeline.training.records import Sums
from pipeline.training.session import LocalSession
from pipeline.training.spec import DataSpec, NetworkSpec, Protocol, RunSpec

GOLDEN = Path(__file__).with_name("losses.json")
NETWORKS: dict[str, dict[str, Any]] = {
    "cifar_attention56": {},
    "cifar_attention92": {"learning": "nal"},
    "cifar_preresnet164": {},
}
PROTOCOL = Protocol(20, 16, 0.01, (10, 15), 0.1, 0.9, True, 1e-4, 2, True, 16)
# What other processors and versions may add in 20 steps; another crop, order or initialisation is off by tenths.
TOLERANCE = 2e-3


def losses(network: str, root: Path) -> list[float]:
    """Training losses of the first 20 steps on the digits: seed 0, float32, batches of 16."""
    data.fetch("digits", "official", root)
    manifest = data.prepare("digits", root)
    checksum, classes = manifest["checksum"], tuple(manifest["classes"])
    spec = RunSpec(
        experiment="golden",
        seed=0,
        network=NetworkSpec(network, 10, NETWORKS[network]),
        data=DataSpec("digits", 0, checksum, None, 16, manifest["train_images"], manifest["test_images"], classes),
        protocol=PROTOCOL,
    )
    session = LocalSession()
    worker = Worker(spec, Execution(root, data.prepared_folder(root, "digits"), None, "golden"), session)
    worker.restore()
    found = []
    for iteration in range(PROTOCOL.iterations):
        worker.step(iteration)
        found.append(worker.tally.read(session).mean_loss)
        worker.tally.set(Sums(), session)
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_the_first_losses_are_those_of_this_version_of_the_numerics(network: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["numerics"] == NUMERICS, f"NUMERICS was raised: {__doc__}"
    assert losses(network, tmp_path) == pytest.approx(golden["losses"][network], abs=TOLERANCE), (
        "training gives other numbers than before: if that is meant, raise NUMERICS in pipeline/training/numerics.py"
        " and write the golden losses anew; runs made before are then other runs"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        fresh = {network: [round(loss, 6) for loss in losses(network, Path(scratch))] for network in NETWORKS}
    GOLDEN.write_text(json.dumps({"numerics": NUMERICS, "losses": fresh}, indent=2) + "\n")
