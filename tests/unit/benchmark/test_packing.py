"""The benchmark of several runs at once: what counts is the time in which all of them train."""

from __future__ import annotations

import pytest

from pipeline.benchmark import packing
from pipeline.benchmark.packing import Packed, as_advice, as_markdown, benchmark_packing, blocks_per_second
from pipeline.utils.errors import UserError


def test_only_the_time_in_which_all_runs_train_counts() -> None:
    assert blocks_per_second([[0, 2, 4, 6]]) == pytest.approx(0.5)
    late = [[0, 1, 2, 6, 10], [4, 8, 12]]  # the first had the machine to itself until 4 s
    assert blocks_per_second(late) == pytest.approx((1.5 + 1.5) / 6)


def test_runs_that_did_not_train_at_the_same_time_are_refused() -> None:
    with pytest.raises(UserError, match="--blocks 3: the runs did not train at the same time; more are needed"):
        blocks_per_second([[0, 1], [2, 3]])


def test_the_advice_is_what_was_fastest_in_sum() -> None:
    rows = [Packed("a", 1, 2, 100, 1.0, 640), Packed("a", 2, 1, 130, 1.3, 985), Packed("b", 1, 2, 50, 1.0, 1280)]
    assert as_advice(rows, "cpu").splitlines() == [
        "a: fastest in sum with 2 at once, resources.threads=1",
        "b: fastest in sum with 1 at once, resources.threads=2",
    ]
    assert as_advice(rows, "cuda").splitlines()[0].endswith("resources.gpus=0.5")
    assert as_markdown(rows).splitlines()[3] == "| a | 2 | 1 | 130 | 1.30 | 985 |"


@pytest.mark.slow
def test_runs_train_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "available_cores", lambda: 2)
    monkeypatch.setitem(packing.STEPS, "cpu", 1)
    seen: list[Packed] = []
    one, two = benchmark_packing(["cifar_attention56"], "cpu", 6, 300, seen.append)
    assert seen == [one, two]
    assert (one.at_once, one.threads, two.at_once, two.threads) == (1, 2, 2, 1)
    assert one.to_one == 1.0 and two.to_one == pytest.approx(two.images_per_second / one.images_per_second)
    assert two.ms_per_step == pytest.approx(1000 * 2 * 64 / two.images_per_second)
