"""Run folders: what is whole is read, everything else is named and gives no number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.claims import judge
from pipeline.report.evidence import CHANGED_DATA, DIVERGED, OLDER_CODE, CurrentState, read_current_state
from pipeline.report.matching import gather
from pipeline.report.records import scan
from pipeline.runs.arrays import write_mistakes
from pipeline.settings.paper import load_paper

NAME = "attention56-s0"


def change(folder: Path, name: str, **values: Any) -> None:
    """Change keys of one of a run's JSON files; None takes a key away."""
    path = folder / name
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def change_protocol(folder: Path, **values: Any) -> None:
    protocol = json.loads((folder / "config.json").read_text())["protocol"]
    change(folder, "config.json", protocol=protocol | values)


def replace_text(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


SEGMENT = {
    "from_iteration": 0, "to_iteration": 90, "started": "2026-01-01T00:00:00Z", "seconds": 12.5,
    "images_per_second": 460.0, "hostname": "host", "device": "cpu", "threads": 1, "workers": 1, "versions": {},
    "commit": None, "dirty": False, "command": "",
}  # fmt: skip
FULL_HISTORY = "epoch,iteration,learning_rate,train_loss,train_error,test_loss,test_error\n"


def write_provenance(folder: Path, **values: Any) -> None:
    content = {"status": "finished", "profile": "digits", "segments": []} | values
    (folder / "provenance.json").write_text(json.dumps(content))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "metrics missing": (lambda f: (f / "metrics.json").unlink(), "metrics.json is missing"),
    "metrics cut off": (lambda f: replace_text(f, "metrics.json", '{"test_error": 5'), "metrics.json: not valid JSON"),
    "metrics a list": (lambda f: replace_text(f, "metrics.json", "[]"), "metrics.json: input should be an object"),
    "error not a number": (
        lambda f: change(f, "metrics.json", test_error="5.5"),
        "test_error = '5.5': input should be a valid number",
    ),
    "error NaN": (lambda f: replace_text(f, "metrics.json", '{"test_error": NaN}'), "NaN is not a finite number"),
    "error a fraction above 100": (
        lambda f: change(f, "metrics.json", test_error=550),
        "test_error = 550: input should be less than or equal to 100",
    ),
    "error absent": (lambda f: change(f, "metrics.json", test_error=None), "has no test_error"),
    "stopped early": (lambda f: change(f, "metrics.json", iterations=90), "unfinished: 90 of 180"),
    "config missing": (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
    "config without protocol": (lambda f: change(f, "config.json", protocol=None), "has no protocol"),
    "config with a string for data": (
        lambda f: change(f, "config.json", data="digits"),
        "data = 'digits': input should be an object",
    ),
    "config with a word for a seed": (
        lambda f: change(f, "config.json", seed="zero"),
        "seed = 'zero': input should be a valid integer",
    ),
    "config with a word for numerics": (lambda f: change(f, "config.json", numerics="new"), "numerics = 'new'"),
    "config with a list of words": (
        lambda f: change_protocol(f, milestones=["late"]),
        "protocol.milestones.0 = 'late'",
    ),
    "config with true iterations": (lambda f: change_protocol(f, iterations=True), "protocol.iterations = True"),
    "no test image": (
        lambda f: change(f, "metrics.json", test_images=0),
        "test_images = 0: input should be greater than 0",
    ),
    "part of the test images": (lambda f: change(f, "metrics.json", test_images=300), "300 of 360 test images"),
    "top-5 error a word": (
        lambda f: change(f, "metrics.json", top5_error="low"),
        "top5_error = 'low': input should be a valid number",
    ),
    "provenance without segments": (
        lambda f: replace_text(f, "provenance.json", '{"status": "finished"}'),
        "has no profile",
    ),
    "provenance with a word for seconds": (
        lambda f: write_provenance(f, segments=[SEGMENT | {"seconds": "long"}]),
        "segments.0.seconds = 'long'",
    ),
    "provenance a list": (
        lambda f: replace_text(f, "provenance.json", "[]"),
        "provenance.json: input should be an object",
    ),
    "config nested too deep": (lambda f: replace_text(f, "config.json", "[" * 100_000), "config.json: not valid JSON"),
    "config of another run": (lambda f: change(f, "config.json", experiment="attention92"), "foreign"),
    "config of another seed": (lambda f: change(f, "config.json", seed=7), "foreign"),
    "history missing": (lambda f: (f / "history.csv").unlink(), "history.csv: no such file"),
    "history empty": (lambda f: replace_text(f, "history.csv", FULL_HISTORY), "no row in it"),
    "history binary": (lambda f: (f / "history.csv").write_bytes(b"\xff\xfe\x00"), "history.csv: malformed"),
    "history of another run": (
        lambda f: replace_text(f, "history.csv", FULL_HISTORY + "8,180,0.1,0.5,9,0.6,99.0\n"),
        "history.csv: ends at a test error of 99.0, metrics.json has",
    ),
    "history too short": (
        lambda f: replace_text(f, "history.csv", FULL_HISTORY + "4,90,0.1,0.5,9,0.6,9.0\n"),
        "ends at iteration 90",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_run_is_named_and_gives_no_number(world: Any, damage: Callable[[Path], None], reason: str) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    damage(world.result("digits", plan.runs[NAME].config))
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.sample("attention56", "test_error").values == {}
    [problem] = evidence.problems
    assert problem.path == "results/digits/attention56/seed0"
    assert reason in problem.reason
    assert "\n" not in problem.reason


@pytest.mark.parametrize("status", ["running", "paused", "failed"])
def test_an_unfinished_run_of_the_store_is_named_and_gives_no_number(world: Any, status: str) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    world.stored(plan.runs[NAME].config, status=status)
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.runs == {}
    assert evidence.status("attention56", 0) == "unfinished"
    assert f"unfinished: {status} at iteration 90" in evidence.problems[0].reason


def test_a_whole_copy_counts_where_the_first_one_is_damaged(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.result("digits", plan.runs[NAME].config)
    world.stored(plan.runs[NAME].config)
    (folder / "metrics.json").write_text("")
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.status("attention56", 0) == "done"
    assert [problem.path for problem in evidence.problems] == ["results/digits/attention56/seed0"]


def test_a_copy_without_provenance_takes_that_of_the_store(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    world.result("digits", plan.runs[NAME].config)
    world.stored(plan.runs[NAME].config)
    run = gather(plan, scan(world.sources), load_paper()).runs[NAME]
    assert run.shown.startswith("results/")
    assert run.provenance is not None and run.provenance.mlflow_run_id == "a" * 32


def test_a_copy_with_another_number_is_named_and_not_used(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.stored(plan.runs[NAME].config)
    first = json.loads((folder / "metrics.json").read_text())["test_error"]
    copy = world.result("digits", plan.runs[NAME].config)
    change(copy, "metrics.json", test_error=first - 0.005)
    evidence = gather(plan, scan([world.store, world.results]), load_paper())
    assert evidence.sample("attention56", "test_error").values == {0: first}
    [problem] = evidence.problems
    assert problem.path == "results/digits/attention56/seed0"
    assert "its test_error is" in problem.reason and f"runs/{folder.name} is {first}" in problem.reason


@pytest.mark.parametrize("name", ["digits/attention56/seed0", "attention56-s0-0123456789ab"])
def test_a_folder_that_should_hold_a_run_and_holds_none_is_named(world: Any, name: str) -> None:
    (world.results / name).mkdir(parents=True)
    evidence = gather(world.plan(experiments={"attention56": 5.5}), scan(world.sources), load_paper())
    assert [(problem.path, problem.reason) for problem in evidence.problems] == [
        (f"results/{name}", "config.json: no such file")
    ]


def test_a_damaged_copy_beside_a_whole_one_is_named_whatever_is_left_of_it(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    world.stored(plan.runs[NAME].config)
    (world.result("digits", plan.runs[NAME].config) / "config.json").write_text("{")
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.status("attention56", 0) == "done"
    assert len(evidence.problems) == 1
    assert evidence.problems[0].reason.startswith("config.json: not valid JSON")


def test_damaged_responses_or_masks_are_named_but_the_error_counts(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.result("digits", plan.runs[NAME].config)
    (folder / "responses.json").write_text('{"relative": ["x"]}')
    (folder / "masks.npz").unlink()
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.status("attention56", 0) == "done"
    assert evidence.sample("attention56", "response", 2).values == {}
    assert len(evidence.problems) == 2


def not_finite_masks(folder: Path) -> None:
    with np.load(folder / "masks.npz") as file:
        arrays = dict(file)
    arrays["s2m1_mask"][0, 0, 0] = np.nan
    np.savez(folder / "masks.npz", **arrays)


DIVERGENCE = {
    "responses": lambda folder: (folder / "responses.json").write_text('{"stages": [1, NaN], "relative": [1, NaN]}'),
    "huge responses": lambda folder: (folder / "responses.json").write_text('{"stages": [1e999], "relative": [1]}'),
    "masks": not_finite_masks,
}


@pytest.mark.parametrize("damage", DIVERGENCE.values(), ids=DIVERGENCE.keys())
def test_a_run_whose_responses_or_masks_are_not_finite_has_diverged_and_decides_nothing(
    world: Any, damage: Callable[[Path], None]
) -> None:
    plan = world.plan(experiments={"attention56": 5.5, "attention56-nal": 5.9}, seeds=3)
    world.train(plan)
    damage(world.results / "digits" / "attention56" / "seed1")
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.sample("attention56", "test_error").marks == (DIVERGED,)
    [problem] = evidence.problems
    assert problem.run == "attention56-s1" and problem.reason.startswith("diverged: ")
    verdict = next(verdict for verdict in judge(evidence, {}) if verdict.claim.id == "arl-beats-nal-56")
    assert verdict.outcome is None and verdict.reason.startswith("diverged, so that nothing is decided: attention56-s1")


def test_features_beyond_the_range_of_float16_are_no_divergence(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.result("digits", plan.runs[NAME].config)
    with np.load(folder / "masks.npz") as file:
        arrays = dict(file)
    arrays["s1m1_channel_before"][0, 0, 0] = np.inf
    np.savez(folder / "masks.npz", **arrays)
    [run] = scan(world.sources).runs.values()
    assert not run.has_diverged and run.notes == ()


def test_which_images_were_wrong_must_agree_with_the_error(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.result("digits", plan.runs[NAME].config)
    error, images = json.loads((folder / "metrics.json").read_text())["test_error"], 360
    change(folder, "metrics.json", test_error=25.0, best_test_error=20.0)
    (folder / "history.csv").write_text((folder / "history.csv").read_text().replace(f",{error}\n", ",25.0\n"))
    write_mistakes(folder, np.arange(images) % 4 == 0)
    [run] = scan(world.sources).runs.values()
    assert run.mistakes is not None and run.mistakes.sum() == 90 and run.notes == ()
    write_mistakes(folder, np.arange(images) % 5 == 0)
    [run] = scan(world.sources).runs.values()
    assert run.mistakes is None
    assert run.notes == (
        "mistakes.npz: 20.00 % of the images, metrics.json has 25.0 %; the run counts, without its mistakes",
    )


def test_missing_sources_are_no_error(tmp_path: Path) -> None:
    assert scan([tmp_path / "nowhere"]).runs == {}


def test_half_written_folders_of_others_are_not_looked_at(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.result("digits", plan.runs[NAME].config)
    shutil.copytree(folder, folder.with_name(".seed0.123.tmp"))
    shutil.rmtree(folder)
    found = scan(world.sources)
    assert (found.runs, found.problems) == ({}, ())


def test_a_run_by_older_code_counts_and_is_marked(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    old = plan.runs[NAME].config | {"numerics": 1, "identity": "0" * 12}
    world.result("digits", old)
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.sample("attention56", "test_error").marks == (OLDER_CODE,)
    assert evidence.status("attention56", 0) == "marked"
    assert evidence.problems == ()


def test_a_run_on_data_that_changed_since_counts_and_is_marked(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    run = plan.runs[NAME].config
    world.result("digits", run | {"data": run["data"] | {"checksum": "9" * 64}, "identity": "0" * 12})
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.sample("attention56", "test_error").marks == (CHANGED_DATA,)


def test_a_run_of_the_plan_is_marked_when_code_or_data_are_newer_than_the_plan(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    run = plan.runs[NAME].config
    world.result("digits", run)
    (world.root / "data/prepared/digits").mkdir(parents=True)
    manifest = world.root / "data/prepared/digits/manifest.json"

    def marks(current_state: CurrentState) -> tuple[str, ...]:
        return gather(plan, scan(world.sources), load_paper(), current_state).sample("attention56", "test_error").marks

    manifest.write_text(json.dumps({"checksum": run["data"]["checksum"]}))
    assert marks(read_current_state(world.root / "data")) == ()
    manifest.write_text(json.dumps({"checksum": "9" * 64}))
    assert marks(read_current_state(world.root / "data")) == (CHANGED_DATA,)
    manifest.write_text("damaged")
    assert marks(read_current_state(world.root / "data")) == ()
    assert marks(CurrentState(numerics=run["numerics"] + 1)) == (OLDER_CODE,)


def test_noisy_labels_that_changed_since_mark_the_runs_on_them(world: Any) -> None:
    plan = world.plan(experiments={"attention92-noise10": 5.2, "attention92": 5.0})
    world.train(plan)
    (world.noisy(plan) / "noisy/digits/10/manifest.json").write_text('{"checksum": "other labels"}')
    evidence = gather(plan, scan(world.sources), load_paper(), read_current_state(world.root / "data"))
    assert evidence.sample("attention92-noise10", "test_error").marks == (CHANGED_DATA,)
    assert evidence.sample("attention92", "test_error").marks == ()


def test_a_plan_without_data_takes_the_runs_that_fit_in_all_the_rest(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5, "attention92": 5.0})
    world.train(plan)
    for run in (planned.config for planned in plan.runs.values()):
        run["data"] = {"dataset": "digits", "noise": 0}
        del run["network"]["num_classes"]
        del run["identity"]
    plan.runs["attention92-s0"].config["protocol"] = plan.runs["attention92-s0"].config["protocol"] | {
        "learning_rate": 0.2
    }
    evidence = gather(plan, scan(world.sources), load_paper())
    assert list(evidence.runs) == [NAME] and evidence.marks == {}
    assert "protocol.learning_rate" in evidence.problems[0].reason


def test_a_current_run_counts_before_an_older_one(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    world.result("digits", plan.runs[NAME].config)
    world.stored(plan.runs[NAME].config | {"numerics": 1, "identity": "0" * 12})
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.runs[NAME].identity == plan.runs[NAME].identity
    assert evidence.problems == () and evidence.marks == {}
    assert len(evidence.elsewhere) == 1


def test_a_run_of_another_schedule_never_slips_into_a_mean(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    run = plan.runs[NAME].config
    longer = run | {"protocol": run["protocol"] | {"iterations": 360}, "identity": "0" * 12}
    world.result("digits", longer)
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.runs == {}
    assert "protocol.iterations" in evidence.problems[0].reason


def test_a_run_that_only_claims_the_plans_identity_is_foreign(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    run = plan.runs[NAME].config
    world.result("digits", run | {"protocol": run["protocol"] | {"learning_rate": 0.2}})
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.runs == {}
    assert "another protocol.learning_rate" in evidence.problems[0].reason


def test_an_experiment_that_the_plan_does_not_have_is_named(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    stranger = world.plan(experiments={"attention99": 5.5}).runs["attention99-s0"].config
    world.result("digits", stranger)
    evidence = gather(plan, scan(world.sources), load_paper())
    assert "the plan has no such run" in evidence.problems[0].reason


def test_runs_of_other_profiles_are_no_problem_of_this_one(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    other = world.plan("cifar10", dataset="cifar10", full=True, experiments={"attention56": 5.5})
    world.train(other)
    unfinished = world.plan("cifar10", dataset="cifar10", full=True, experiments={"attention92": 5})
    world.stored(unfinished.runs["attention92-s0"].config, status="paused", profile="cifar10")
    evidence = gather(plan, scan(world.sources), load_paper())
    assert evidence.problems == ()
    assert {problem.profile for problem in evidence.elsewhere} == {"cifar10"}
