"""The benchmark of the loaders: both make batches of the same kind from the same files, and are set side by side."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.benchmark import loading
from pipeline.benchmark.loading import Job, Rate, as_line, benchmark_loading
from pipeline.benchmark.rates import write_rates
from pipeline.data.shards import open_image_shards
from pipeline.utils.errors import UserError


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Small batches of small images."""
    monkeypatch.setattr(loading, "BATCH", 4)
    monkeypatch.setattr(loading, "CROP", 32)
    monkeypatch.setattr(loading, "SIZES", ((40, 50), (50, 40), (35, 50), (90, 120)))
    monkeypatch.setattr(loading, "run_apart", lambda function, job, seconds, environment: function(job))
    return Job(tmp_path, "cpu", cores=1, batches=1, blocks=3)


def test_both_loaders_have_the_same_images(job: Job) -> None:
    loading.write_images(job.folder, 16)
    shards = open_image_shards(job.folder / "prepared").train
    files = sorted((job.folder / "tree" / "train").rglob("*.JPEG"))
    assert [shards.encoded(k) for k in range(16)] == [path.read_bytes() for path in files]
    assert sorted({shards.size(k) for k in range(16)}) == [(35, 50), (40, 50), (50, 40), (90, 120)]


def test_loaders_are_measured_and_set_side_by_side(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(loading.LOADERS, "Ray Data + PIL")
    seen: list[Rate] = []
    usual, ours, without = benchmark_loading(job, 60, seen.append)
    assert seen == [usual, ours, without]
    assert usual.to_usual is None and ours.to_usual == pytest.approx(ours.images_per_second / usual.images_per_second)
    assert "times the usual one" in as_line(ours)
    write_rates(job.folder / "rates.csv", seen, hardware="cpu: Example")
    with (job.folder / "rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loader"] for row in rows] == ["ImageFolder + DataLoader + PIL", "ours", "ours, without huge pages"]
    assert float(rows[1]["to_usual"]) == pytest.approx(ours.to_usual, rel=1e-3)


def test_too_few_blocks_are_refused(job: Job) -> None:
    from dataclasses import replace

    with pytest.raises(UserError, match="--blocks 2: at least 3 are needed"):
        benchmark_loading(replace(job, blocks=2), 60, print)


@pytest.mark.slow
def test_ray_data_makes_batches_of_the_same_kind(job: Job) -> None:
    loading.write_images(job.folder, 16)
    (seconds,) = loading.ray_data(job)
    assert len(seconds) == job.blocks and all(value > 0 for value in seconds)
