"""The path of ImageNet from JPEG files to Table 7, by DVC and Ray Train, with two workers."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.batches import epoch_order
from tests.integration.conftest import Clone

SHORT = (
    "resources.workers=2",
    "protocol.iterations=4",
    "protocol.milestones=[3]",
    "checkpoints.seconds=3600",
    "~experiments.attention92",
    "~experiments.resnet152",
)


@pytest.fixture(scope="module")
def repro(clone: Clone) -> list[str]:
    """The stages that ran in a clone from nothing to the report."""
    clone.run(sys.executable, "-m", "pipeline", "compose", "imagenet-mini", *SHORT)
    shutil.rmtree(clone.root / "reports" / "imagenet-mini")  # it has more runs, and would stay as it is
    return clone.repro()


@pytest.mark.slow
def test_a_clone_comes_from_nothing_to_table_7(clone: Clone, repro: list[str]) -> None:
    assert repro[:2] == ["fetch@imagenet-mini", "prepare@imagenet-mini"]
    assert repro[-1] == "report@imagenet-mini"
    result = clone.root / "results/imagenet-mini/attention56/seed0"
    metrics = json.loads((result / "metrics.json").read_text())
    assert metrics["test_images"] == 144
    assert 0 <= metrics["top5_error"] <= metrics["test_error"] <= 100
    with (clone.root / "reports/imagenet-mini/tables/table7.csv").open(newline="") as file:
        cells = {(row["row"], row["column"]): row for row in csv.DictReader(file)}
    assert float(cells["attention56", "imagenet-mini-top1"]["measured"]) == pytest.approx(metrics["test_error"])
    assert float(cells["attention56", "imagenet-mini-top5"]["measured"]) == pytest.approx(metrics["top5_error"])
    assert cells["attention56", "top1"]["printed"] == "21.76" and not cells["attention56", "top1"]["measured"]
    first = (clone.root / "reports/imagenet-mini/report.md").read_text()
    assert "do not reproduce the paper's" in first[: first.index("## ")]


@pytest.mark.slow
def test_two_workers_shared_the_images(clone: Clone, repro: list[str]) -> None:
    [folder] = (clone.root / "runs").glob("attention56-s0-*")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert [segment["workers"] for segment in provenance["segments"]] == [2]


@pytest.mark.slow
def test_nothing_is_left_to_do(clone: Clone, repro: list[str]) -> None:
    assert clone.repro() == []
    assert Path(clone.root / "data/prepared/imagenet-mini/train-00000.bin").is_file()


@pytest.mark.slow
def test_a_image_that_one_of_two_workers_cannot_decode_ends_the_run_in_one_line(clone: Clone, repro: list[str]) -> None:
    """Ray's own way would be to let the other one wait for half an hour, and to try three times more."""
    shard = clone.root / "data/prepared/imagenet-mini/train-00000.bin"
    index = np.load(shard.with_name("train.npy"))
    row = index[epoch_order(1, 0, len(index))[50]]  # in the second batch of 32, of which it is the second worker's
    content = bytearray(shard.read_bytes())
    content[row["offset"] : row["offset"] + row["length"]] = bytes(row["length"])
    shard.chmod(0o644)
    shard.write_bytes(content)
    clone.run(sys.executable, "-m", "pipeline", "compose", "imagenet-mini", *SHORT, "seeds=[1]")
    clone.run(sys.executable, "-m", "pipeline", "plan")
    told = clone.run(sys.executable, "-m", "pipeline", "launch", check=False)
    assert told.returncode != 0
    (line,) = [line for line in told.stderr.splitlines() if "attention56-s1 failed" in line]
    assert f"{shard}: {row['length']} bytes from {row['offset']}: cannot be decoded" in line
    (folder,) = (clone.root / "runs").glob("attention56-s1-*")
    log = (folder / "log.txt").read_text()
    assert "Traceback" not in told.stderr, log
