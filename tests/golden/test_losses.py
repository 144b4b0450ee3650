"""Golden losses: the first 20 training losses of three networks, and the first 3 of each ablation.

`python -m tests.golden.test_losses` writes them anew, after NUMERICS was raised.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.arrays import write_arrays
from pipeline.runs.execution import Execution
from pipeline.runs.records import Sums
from pipeline.runs.spec import NUMERICS, DataSpec, NetworkSpec, RunSpec
from pipeline.training.loop import Worker
from pipeline.training.session import LocalSession
from tests.plans import make_protocol

GOLDEN = Path(__file__).with_name("losses.json")
NETWORKS = ("cifar_attention56", "cifar_attention92", "cifar_preresnet164")
ABLATIONS: dict[str, dict[str, Any]] = {
    "nal": {"learning": "nal"},
    "channel": {"activation": "channel"},
    "spatial": {"activation": "spatial"},
    "local": {"mask": "local"},
    "p2-t1-r2": {"p": 2, "t": 1, "r": 2},
}
# The weight decay is a million times the paper's: at this rate it would not be seen otherwise.
PROTOCOL = make_protocol(
    iterations=20, batch_size=16, learning_rate=1e-5, milestones=(10, 15), weight_decay=100.0, padding=0, flip=True
)
# What other processors may add in 20 steps at this low rate; another order, initialisation or momentum is far off.
# (At a usual rate, or with NAL, rounding alone grows to a tenth within ten steps.)
TOLERANCE = 1e-3
ABLATION_STEPS = 3


def noise_images(folder: Path) -> dict[str, Any]:
    """Prepared data of random pixels; their manifest.

    Flat areas, as digits and padding have them, would tie in the max pooling, and rounding would decide where gradients
    go: two threads instead of one change the losses of the digits by a tenth within ten steps.
    """
    random = np.random.Generator(np.random.PCG64(0)).integers
    images, labels = random(0, 256, (160, 16, 16, 3), dtype=np.uint8), random(0, 10, 160)
    arrays = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:10],
        "test_labels": labels[:10],
        "mean": (images.astype(np.int64).sum(0) / (255 * len(images))).astype(np.float32),
    }
    about = {"classes": list("0123456789"), "image_shape": [16, 16, 3], "train_images": 160, "test_images": 10}
    return write_arrays(folder, arrays, about)


def losses(
    network: str,
    root: Path,
    options: dict[str, Any] | None = None,
    *,
    steps: int = PROTOCOL.iterations,
    device: str = "cpu",
    compiled: bool = False,
) -> list[float]:
    """Training losses of the first steps: seed 0, batches of 16, the network in double precision."""
    checksum = noise_images(root / "prepared")["checksum"]
    spec = RunSpec(
        experiment="golden",
        seed=0,
        network=NetworkSpec(network, 10, options or {}),
        data=DataSpec("noise", 0, checksum, None, 16, 160, 10, tuple("0123456789")),
        protocol=PROTOCOL,
        compile=compiled,
    )
    session = LocalSession(device)
    worker = Worker(spec, Execution(root, root / "prepared", None, "golden"), session)
    worker.restore()
    worker.bare.double().register_forward_pre_hook(lambda _module, inputs: (inputs[0].double(),))
    found = []
    for iteration in range(steps):
        worker.step(iteration)
        found.append(worker.tally.read(session).mean_loss)
        worker.tally.set(Sums(), session)
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_the_first_losses_are_those_of_this_version_of_the_numerics(network: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["numerics"] == NUMERICS, f"NUMERICS was raised: {__doc__}"
    assert losses(network, tmp_path) == pytest.approx(golden["losses"][network], abs=TOLERANCE), (
        "training gives other numbers than before: if that is meant, raise NUMERICS in pipeline/runs/spec.py"
        " and write the golden losses anew; runs made before are then other runs"
    )


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_first_losses_of_an_ablation_are_those_of_this_version_of_the_numerics(
    ablation: str, tmp_path: Path
) -> None:
    found = losses("cifar_attention56", tmp_path, ABLATIONS[ablation], steps=ABLATION_STEPS)
    assert found == pytest.approx(json.loads(GOLDEN.read_text())["ablations"][ablation], abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_compiled_network_trains_the_same(tmp_path: Path) -> None:
    """In double precision: in single, a difference of the last digit grows to percents through batch norm and ReLU."""
    torch._dynamo.reset()
    golden = json.loads(GOLDEN.read_text())["losses"]["cifar_attention56"]
    assert losses("cifar_attention56", tmp_path, compiled=True) == pytest.approx(golden, abs=TOLERANCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        fresh = {network: [round(loss, 6) for loss in losses(network, root)] for network in NETWORKS}
        ablated = {
            name: [round(loss, 6) for loss in losses("cifar_attention56", root, options, steps=ABLATION_STEPS)]
            for name, options in ABLATIONS.items()
        }
    content = {"numerics": NUMERICS, "losses": fresh, "ablations": ablated}
    GOLDEN.write_text(json.dumps(content, indent=2) + "\n")
