"""The benchmark of the training loop, with blocks of one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.benchmark import training
from pipeline.benchmark.rates import write_rates
from pipeline.benchmark.training import Rate, as_markdown, benchmark_training


@pytest.mark.slow
def test_all_loops_are_measured_beside_the_plain_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "available_cores", lambda: 1)
    monkeypatch.setitem(training.STEPS, "cpu", 1)
    seen: list[Rate] = []
    rates = benchmark_training(("cifar_attention56",), "cpu", 3, 300, seen.append)
    assert seen == rates
    loops = ["plain eager float32", "ours, in-process", "ours, without huge pages", "ours, Ray Train"]
    assert [rate.loop for rate in rates] == loops
    assert {(rate.workers, rate.threads) for rate in rates} == {(1, 1)}
    plain, ours, *others = rates
    assert plain.to_plain is None and ours.to_plain == pytest.approx(ours.images_per_second / plain.images_per_second)
    assert all(rate.start_up > 0 and rate.ms_per_step == pytest.approx(64e3 / rate.images_per_second) for rate in rates)
    assert ours.not_network is not None and ours.not_network < 100
    assert ours.checkpoint is not None and 0 < ours.checkpoint < 60
    assert all(rate.not_network is None and rate.checkpoint is None for rate in (plain, *others))

    write_rates(tmp_path / "table.csv", rates, hardware="this one")
    header, *rows = (tmp_path / "table.csv").read_text().splitlines()
    assert header.startswith("network,loop,threads") and len(rows) == len(rates)
    head, _, *lines = as_markdown(rates).splitlines()
    assert {line.count("|") for line in (head, *lines)} == {11}
