from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.benchmark.precision import as_markdown, write_errors
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from tests.plans import make_protocol

ERRORS = {"float32": {0: 4.0, 1: 5.0, 2: 6.0}, "bfloat16": {0: 4.5, 1: 5.0, 2: 6.1}}
SPEC = RunSpec(
    "attention56",
    0,
    NetworkSpec("cifar_attention56", 10),
    DataSpec("digits", 0, "c" * 64, None, 16, 1437, 360, tuple("0123456789")),
    make_protocol(iterations=135, batch_size=64, milestones=(81, 113)),
)


def test_the_table_has_means_spreads_and_the_paired_difference_with_its_interval() -> None:
    text = as_markdown(ERRORS)
    assert "| float32 | 5.00 % | 1.00 | 3 |" in text
    assert "| bfloat16 | 5.20 % | 0.82 | 3 |" in text
    assert "bfloat16 less float32, paired by seed: +0.20 points, 95 % interval -0.46 to +0.86." in text


def test_one_seed_gives_a_difference_without_an_interval() -> None:
    text = as_markdown({"float32": {0: 4.0}, "bfloat16": {0: 4.5}})
    assert text.endswith("paired by seed: +0.50 points.")


def test_every_error_is_written_in_full(tmp_path: Path) -> None:
    write_errors(tmp_path / "a.csv", ERRORS, SPEC, "cpu: some")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "experiment,dataset,iterations,precision,seed,test_error,hardware"
    assert len(lines) == 7
    assert float(lines[6].split(",")[5]) == pytest.approx(6.1)
