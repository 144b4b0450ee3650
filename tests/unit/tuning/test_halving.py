"""Early stopping by Ray Tune's ASHA: where trials are compared, and for which of them the time is spent."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.runs.execution import STOP_FILE
from pipeline.tuning.ray_tune import _Halving
from pipeline.tuning.space import Stopping, load_space
from tests.unit.tuning.conftest import search

EVALUATIONS = [19, 38, 57, 75, 94, 113, 132, 135]  # of a trial on `digits`


@pytest.mark.parametrize(
    ("grace", "factor", "rungs"),
    [(0.3, 3, (38,)), (0.1, 3, (19, 38)), (0.25, 2, (38, 75)), (0.25, 4, (38,)), (0.01, 3, (19, 38))],
)
def test_rungs_are_evaluations_long_before_the_end(grace: float, factor: int, rungs: tuple[int, ...]) -> None:
    assert Stopping(grace=grace, reduction_factor=factor).rungs(EVALUATIONS) == rungs


def test_a_trial_with_one_evaluation_is_never_compared() -> None:
    assert Stopping(grace=0.3, reduction_factor=3).rungs([135]) == ()


def trial(folder: Path, number: int) -> Any:
    place = folder / f"trial{number}"
    place.mkdir(exist_ok=True)
    job = SimpleNamespace(execution=SimpleNamespace(folder=place))
    return SimpleNamespace(trial_id=str(number), config={"job": job})


def is_stopped(halving: _Halving, one: Any, iteration: int, error: float) -> bool:
    assert halving.on_trial_result(None, one, {"iteration": iteration, "test_error": error}) == halving.CONTINUE
    return (one.config["job"].execution.folder / STOP_FILE).exists()


def test_a_bad_trial_is_stopped_at_a_rung_and_nowhere_else(root: Path, tmp_path: Path) -> None:
    made = search(root)  # 100 iterations, 12 or 13 in an epoch
    assert made.config.rungs == (38,)
    halving = _Halving(made, [])
    for number in range(5):
        good = trial(tmp_path, number)
        halving.on_trial_add(None, good)
        assert not any(is_stopped(halving, good, iteration, 10 + number / 10) for iteration in (13, 25)), number
        is_stopped(halving, good, 38, 10 + number / 10)
    bad = trial(tmp_path, 9)
    halving.on_trial_add(None, bad)
    assert [is_stopped(halving, bad, iteration, 90.0) for iteration in (13, 25, 38)] == [False, False, True]
    late = trial(tmp_path, 10)
    halving.on_trial_add(None, late)
    assert not is_stopped(halving, late, 38, 1.0), "the best one continues"
    assert not any(is_stopped(halving, late, iteration, 99.0) for iteration in (50, 63, 75, 88, 100)), "no rung there"


@pytest.mark.parametrize("name", ["optimiser", "architecture", "augmentation"])
def test_half_of_the_time_goes_to_trials_that_are_trained_to_their_end(name: str, root: Path, tmp_path: Path) -> None:
    _, content = load_space(name, Path(__file__).parents[3])
    made = search(root, stopping=content.stopping.model_dump())
    draw, spent, useful = random.Random(0), 0, 0
    for repetition in range(20):
        halving = _Halving(made, [])
        for number in range(content.trials):
            one, error = trial(tmp_path, 1000 * repetition + number), draw.uniform(5, 50)
            halving.on_trial_add(None, one)
            points = [*made.config.rungs, made.config.iterations]
            reached = next((point for point in points[:-1] if is_stopped(halving, one, point, error)), points[-1])
            spent += reached
            useful += reached if reached == points[-1] else 0
    assert useful / spent >= 0.5
