"""A thousand runs: the budget of the report."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline.report.build import build_report


@pytest.mark.slow
def test_a_thousand_runs_take_half_a_minute_and_five_megabytes(world: Any) -> None:
    plan = world.plan("cifar10", seeds=50, dataset="cifar10", full=True)
    assert len(plan.runs) == 1000
    world.train(plan, rows=205)
    out = world.root / "reports/cifar10"
    start = time.process_time()
    summary = build_report(plan, world.sources, out, world.root / "local", None)
    seconds = time.process_time() - start
    assert summary.runs_done == 1000
    assert seconds < 30, f"{seconds:.1f} CPU-seconds"
    assert (out / "report.html").stat().st_size < 5_000_000
