"""Verdicts: the rule that gives them, and that nothing but the paper's data and schedule reads as a reproduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.report.claims import Verdict, judge
from pipeline.report.counts import Count
from pipeline.report.evidence import Evidence, read_current_state
from pipeline.report.matching import gather
from pipeline.report.records import Run, Scan, scan
from pipeline.report.tables import build_tables
from pipeline.runs.records import Metrics
from pipeline.settings.paper import load_paper
from pipeline.settings.plan import Plan
from tests.unit.report.conftest import ERRORS, write_provenance, write_run

COUNTS = {
    "attention92": Count("attention92", 224, 52466344, 10533789696, 92, ""),
    "preresnet200": Count("preresnet200", 224, 64666280, 15007000000, 200, ""),
}


def evidence_of(plan: Plan, errors: Mapping[str, list[float]]) -> Evidence:
    """Evidence with runs that exist in memory only: errors by experiment and seed."""
    runs = {}
    for experiment, values in errors.items():
        for seed, error in enumerate(values):
            planned = plan.runs[f"{experiment}-s{seed}"]
            config = planned.config
            metrics = Metrics(
                test_error=error, test_loss=1.0, train_error=error, train_loss=1.0, best_test_error=error,
                best_epoch=1.0, iterations=config["protocol"]["iterations"], epochs=1.0,
                parameters=planned.cost.parameters, multiply_adds=1, test_images=10000, weights_sha256="",
            )  # fmt: skip
            run = Run(Path(), "memory", config, metrics, pd.DataFrame(), None, None, plan.profile)
            runs[run.identity] = run
    return gather(plan, Scan(runs, ()), load_paper())


def verdict(evidence: Evidence, claim: str, margin: float = 0.25) -> Verdict:
    return next(v for v in judge(evidence, COUNTS, margin) if v.claim.id == claim)


def full_plan(world: Any, seeds: int = 5) -> Plan:
    return world.plan("cifar10", seeds=seeds, dataset="cifar10", full=True)


def test_a_clear_effect_over_three_seeds_is_reproduced(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert result.text == "reproduced"
    assert result.effect is not None and result.effect.value == pytest.approx(5.91667 - 5.5, abs=1e-4)
    assert result.seeds == "3 of 5 seeds"


def test_a_clear_effect_the_other_way_is_not_reproduced(world: Any) -> None:
    errors = {"attention56": [5.9, 6.0, 5.85], "attention56-nal": [5.5, 5.6, 5.4]}
    assert verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56").text == "not reproduced"


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(world: Any, seeds: int) -> None:
    errors = {"attention56": [5.0, 5.0001][:seeds], "attention56-nal": [50.0, 50.0002][:seeds]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert (result.text, result.outcome) == ("undecided", None)
    assert "fewer than 3 seeds" in result.reason


def test_the_smaller_arm_counts(world: Any) -> None:
    errors = {"attention56": [5.0, 5.0, 5.01, 5.0, 5.0], "attention56-nal": [9.0, 9.0]}
    assert verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56").text == "undecided"


def test_an_interval_wider_than_the_effect_decides_nothing_and_says_how_many_seeds_would(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.5, 6.2, 5.3]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert result.text == "undecided"
    assert "wider than the effect" in result.reason
    assert result.seeds_needed is not None and result.seeds_needed > 3


def test_equal_errors_are_undecided_but_called_equal(world: Any) -> None:
    errors = {"attention56": [5.50, 5.51, 5.49, 5.50], "attention56-nal": [5.51, 5.50, 5.49, 5.50]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert result.text == "undecided"
    assert "equal within 0.25 points" in result.reason


@pytest.mark.parametrize("apart", [0.0, 0.4])
def test_seeds_that_all_say_the_same_decide_nothing(world: Any, apart: float) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.5 + apart, 5.6 + apart, 5.4 + apart]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert (result.text, result.outcome, result.seeds_needed) == ("undecided", None, None)
    assert "every seed gives the same" in result.reason


def test_two_runs_on_the_same_test_images_have_the_sampling_error_of_their_difference(world: Any) -> None:
    evidence = evidence_of(full_plan(world), {"attention56": [5.0], "attention56-nal": [5.5]})
    assert "±0.32 points, as if on different test images" in verdict(evidence, "arl-beats-nal-56").reason
    images = np.arange(10_000)
    wrong = {"attention56-s0": images < 500, "attention56-nal-s0": images < 550}
    runs = {name: replace(evidence.runs[name], mistakes=mistakes) for name, mistakes in wrong.items()}
    evidence = replace(evidence, runs=runs)
    assert verdict(evidence, "arl-beats-nal-56").reason.endswith("sampling error alone: ±0.07 points")


def test_a_missing_arm_is_not_run_and_named(world: Any) -> None:
    result = verdict(evidence_of(full_plan(world), {"attention56": [5.5, 5.6, 5.4]}), "arl-beats-nal-56")
    assert result.text == "not run"
    assert "attention56-nal" in result.reason


def test_slopes_are_compared_over_seeds_that_have_all_levels(world: Any) -> None:
    errors = {}
    for level, error in ((10, 5.0), (30, 6.0), (50, 7.0), (70, 8.0)):
        errors[f"attention92-noise{level}"] = [error, error + 0.01, error]
        errors[f"resnet164-noise{level}"] = [error * 2, error * 2 + 0.001 * level, error * 2]
    result = verdict(evidence_of(full_plan(world), errors), "noise-slope")
    assert result.text == "reproduced"
    assert result.effect is not None and result.effect.value == pytest.approx(0.5 + 0.01 / 3)
    assert result.printed == pytest.approx(0.115)
    assert result.quantity == "slope" and "paired t" in result.reason


def test_slopes_without_a_seed_that_has_all_levels_decide_nothing(world: Any) -> None:
    runs = {f"{net}-noise{level}": [7.0] for net in ("attention92", "resnet164") for level in (10, 30, 50)}
    assert verdict(evidence_of(full_plan(world), runs), "noise-slope").text == "not run"
    apart = evidence_of(full_plan(world), runs | {f"{net}-noise70": [8.0, 8.0] for net in ("attention92", "resnet164")})
    del apart.runs["attention92-noise70-s0"]
    result = verdict(apart, "noise-slope")
    assert (result.text, result.reason) == ("not run", "pending: no seed has every noise level")


def test_one_seed_states_what_the_size_of_the_test_set_alone_leaves_open(world: Any) -> None:
    errors = {"attention56": [5.5], "attention56-nal": [5.9]}
    assert (
        "sampling error alone: ±0.33 points"
        in verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56").reason
    )


def test_networks_for_imagenet_decide_no_claim_about_those_for_cifar(world: Any) -> None:
    errors = {"attention56": 21.8, "attention56-nal": 30.0}
    plan = world.plan("imagenet", dataset="imagenet", full=True, experiments=errors)
    for run in (planned.config for planned in plan.runs.values()):
        run["network"]["name"] = "attention56"
    result = verdict(evidence_of(plan, {name: [error] for name, error in errors.items()}), "arl-beats-nal-56")
    assert (result.text, result.reason) == ("not run", "needs runs on cifar10")


def test_a_printed_value_is_met_within_the_margin_or_below(world: Any) -> None:
    plan = world.plan("cifar10-large", seeds=3, dataset="cifar10", full=True, experiments={"attention452": 3.9})

    def of(*errors: float) -> str:
        return verdict(evidence_of(plan, {"attention452": list(errors)}), "attention452-cifar10").text

    assert of(3.95, 3.96, 3.94) == "reproduced"
    assert of(3.5, 3.51, 3.49) == "reproduced"
    assert of(4.5, 4.51, 4.49) == "not reproduced"
    assert of(3.9, 4.4, 4.1) == "undecided"
    assert of(3.9) == "undecided"
    open_one = verdict(evidence_of(plan, {"attention452": [3.9, 4.4, 4.1]}), "attention452-cifar10")
    assert open_one.seeds_needed is None or open_one.seeds_needed > 3


def test_counts_agree_or_differ_but_are_no_reproduction(world: Any) -> None:
    evidence = evidence_of(world.plan(), {})
    assert verdict(evidence, "multiply-adds-resnet200").text == "count agrees"
    assert verdict(evidence, "parameters-resnet200").text == "count differs"
    assert verdict(evidence, "parameters-resnet152").text == "not run"


def test_a_stand_in_says_so_in_every_verdict(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    evidence = evidence_of(world.plan(seeds=3), errors)
    assert verdict(evidence, "arl-beats-nal-56").text == "holds on stand-in data (digits)"
    assert verdict(evidence, "attention452-cifar10").reason == "needs runs on cifar10"
    assert verdict(evidence, "attention92-beats-resnet164-cifar100").reason == "needs runs on cifar100"


def test_what_a_stand_in_leaves_open_says_so_too(world: Any) -> None:
    evidence = evidence_of(world.plan(), {"attention56": [5.5], "attention56-nal": [5.9]})
    assert verdict(evidence, "arl-beats-nal-56").text == "undecided on stand-in data (digits)"


@pytest.mark.parametrize("size", ["train_images", "test_images", "image_size"])
def test_a_part_of_the_papers_data_reproduces_nothing(world: Any, size: str) -> None:
    plan = full_plan(world, seeds=3)
    for run in (planned.config for planned in plan.runs.values()):
        run["data"][size] //= 10
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    assert "reproduced" not in verdict(evidence_of(plan, errors), "arl-beats-nal-56").text


@pytest.mark.parametrize(
    ("experiment", "section", "key", "value", "said"),
    [
        ("attention56", "network", "options", {"activation": "channel"}, "activation"),
        ("attention56-nal", "network", "options", {}, "learning"),
        ("attention92-noise70", "data", "noise", 10, "noise"),
        ("attention56", "network", "name", "cifar_attention92", "network"),
        ("attention56", "data", "checksum", "c" * 64, "checksum"),
        ("attention56", "protocol", "nesterov", False, "nesterov"),
    ],
)
def test_another_experiment_under_the_papers_name_reproduces_nothing(
    world: Any, experiment: str, section: str, key: str, value: Any, said: str
) -> None:
    plan = full_plan(world, seeds=3)
    for seed in range(3):
        run = plan.runs[f"{experiment}-s{seed}"].config
        run[section] = run[section] | {key: value}
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    text = verdict(evidence_of(plan, errors), "arl-beats-nal-56").text
    assert text == f"holds with another {said} than the paper's (cifar10)"


def test_a_short_schedule_says_so_in_every_verdict(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    plan = world.plan("cifar10-short", seeds=3, dataset="cifar10")
    text = verdict(evidence_of(plan, errors), "arl-beats-nal-56").text
    assert text == "holds under another schedule than the paper's (cifar10)"


def test_a_plan_that_only_calls_itself_full_reproduces_nothing(world: Any) -> None:
    plan = world.plan("cifar10", seeds=3, dataset="cifar10")
    plan = replace(plan, label=replace(plan.label, schedule="full"))
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    assert "reproduced" not in verdict(evidence_of(plan, errors), "arl-beats-nal-56").text


def test_cifar_100_does_not_reproduce_a_claim_about_cifar_10(world: Any) -> None:
    plan = world.plan("cifar100", seeds=3, dataset="cifar100", full=True)
    errors = {"attention56": [25.5, 25.6, 25.4], "attention56-nal": [27.9, 28.0, 27.85]}
    text = verdict(evidence_of(plan, errors), "arl-beats-nal-56").text
    assert text == "holds on other data than the paper's (cifar100)"


def test_a_verdict_says_in_how_many_seeds_the_papers_direction_was_seen(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 6.4], "attention56-nal": [5.9, 6.0, 5.85]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert result.direction == "in the paper's direction in 2 of 3 seeds"
    assert result.unit == "difference in points; positive supports the claim"


def test_a_seed_of_one_arm_alone_counts_in_the_effect_but_in_no_direction(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85, 6.0, 5.9]}
    result = verdict(evidence_of(full_plan(world), errors), "arl-beats-nal-56")
    assert result.agreeing == (3, 3) and result.effect is not None
    assert result.effect.value == pytest.approx(5.93 - 5.5) and "Welch" in result.reason


def test_p_values_are_adjusted_for_all_claims_that_are_tested(world: Any) -> None:
    plan = full_plan(world)
    pair = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [5.9, 6.0, 5.85]}
    alone = verdict(evidence_of(plan, pair), "arl-beats-nal-56")
    more = pair | {"attention92": [5.0, 5.1, 4.9], "attention92-nal": [5.3, 5.6, 5.1]}
    among = verdict(evidence_of(plan, more), "arl-beats-nal-56")
    assert alone.effect is not None and alone.adjusted_p == alone.effect.p
    assert among.adjusted_p == pytest.approx(2 * (alone.adjusted_p or 0))


def test_a_run_that_guesses_is_named_and_decides_nothing(world: Any) -> None:
    errors = {"attention56": [5.5, 5.6, 5.4], "attention56-nal": [90.0, 89.9, 90.1]}
    evidence = evidence_of(full_plan(world), errors)
    result = verdict(evidence, "arl-beats-nal-56")
    assert result.outcome is None and "at chance" in result.reason and "attention56-nal-s0 (90.00 %)" in result.reason
    assert "a run no better than guessing" in result.marks


def test_a_claim_about_label_noise_says_that_its_seeds_share_one_draw(world: Any) -> None:
    errors = {"attention92-noise10": [5.0, 5.1, 4.9], "resnet164-noise10": [6.0, 6.3, 5.8]}
    evidence = evidence_of(full_plan(world), errors)
    assert "all seeds share one draw of the noisy labels" in verdict(evidence, "noise10").reason
    assert "draw" not in verdict(evidence, "arl-beats-nal-56").reason


def test_two_draws_of_the_noisy_labels_are_counted(world: Any) -> None:
    plan = full_plan(world)
    plan.runs["resnet164-noise10-s1"].config["data"]["noise_checksum"] = "e" * 64
    errors = {"attention92-noise10": [5.0, 5.1, 4.9], "resnet164-noise10": [6.0, 6.3, 5.8]}
    assert "2 draws of the noisy labels" in verdict(evidence_of(plan, errors), "noise10").reason


EXPERIMENTS = ("attention56", "attention56-nal", "attention92", "resnet164")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.dictionaries(st.sampled_from(EXPERIMENTS), st.lists(st.floats(0, 100), min_size=1, max_size=5)),
    st.sampled_from(["digits", "cifar10"]),
    st.sampled_from(["full", "short"]),
)
def test_no_errors_whatever_make_a_stand_in_or_a_short_schedule_read_as_a_reproduction(
    world: Any, errors: dict[str, list[float]], dataset: str, schedule: str
) -> None:
    plan = world.plan(seeds=5, dataset=dataset)
    plan = replace(plan, label=replace(plan.label, schedule=schedule))
    for result in judge(evidence_of(plan, errors), COUNTS):
        assert "reproduced" not in result.text
        if result.text != "not run" and result.claim.kind != "ratio":
            assert "stand-in data" in result.text or "another schedule" in result.text
        if result.outcome is not None and result.claim.kind != "ratio":
            assert result.effect is not None and result.effect.n >= 3


def test_other_draws_of_the_noisy_labels_have_a_table_and_a_say(world: Any) -> None:
    plan = world.plan(seeds=3)
    world.train(plan)
    for name, run in ((planned.name, planned.config) for planned in plan.runs.values()):
        if run["data"]["noise"] and not name.startswith("resnet164-noise70"):
            other = run["data"] | {"noise_draw": 1, "noise_checksum": "a" * 64}
            world.stored(run | {"data": other, "identity": run["identity"][::-1]})
    evidence = gather(plan, scan(world.sources), load_paper(), read_current_state(world.noisy(plan)))
    assert evidence.problems == () and set(evidence.other_draws) == {1}
    assert evidence.sample("attention92-noise10", "test_error").marks == ()
    tables = {table.paper.id: table for table in build_tables(evidence, COUNTS)}
    again = tables["table5-draw1"]
    assert again.paper.name == "Table 5" and again.paper.title.endswith(", draw 1 of the noisy labels")
    cells = {cell.id: cell for cell in again.cells}
    assert len(cells["table5-draw1/noise10/attention92"].sample.values) == 3
    assert cells["table5-draw1/noise70/resnet164"].sample.values == {}
    result = verdict(evidence, "noise50")
    assert "; all seeds share one draw of the noisy labels; with draw 1 in the paper's direction in" in result.reason
    assert "with draw 1" not in verdict(evidence, "noise-slope").reason


def test_published_seeds_count_in_slopes_as_in_every_other_number(world: Any) -> None:
    errors = {name: ERRORS[name] for name in ERRORS if "noise" in name}
    plan = world.plan(experiments=errors)
    world.train(plan)
    for run in (planned.config for planned in world.plan(experiments=errors, seeds=3).runs.values() if planned.seed):
        folder = write_run(world.published / "digits" / f"{run['experiment']}-s{run['seed']}-{run['identity']}", run)
        write_provenance(folder, "finished", "digits")
    evidence = gather(plan, scan(world.sources), load_paper())
    slopes = evidence.slopes({level: f"attention92-noise{level}" for level in (10, 30, 50, 70)})
    assert slopes.seeds == evidence.sample("attention92-noise10", "test_error").seeds == "3 of 3 seeds"
