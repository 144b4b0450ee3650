"""Searches without Ray: which trial comes next, how one ends, and how a killed search continues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline import runs
from pipeline.runs.execution import STOP_FILE
from pipeline.runs.records import CHECKPOINTS, Provenance
from pipeline.runs.run_lock import lock_run
from pipeline.settings import config, reading
from pipeline.tuning import command
from pipeline.tuning.command import _check_begun
from pipeline.tuning.search import Job, prepare
from pipeline.tuning.trials import trials
from pipeline.utils.errors import UserError
from tests.unit.tuning.conftest import SPACE, pretend, search, space


def test_the_first_trial_has_the_profiles_own_settings_and_all_differ(root: Path) -> None:
    made = search(root)
    jobs = list(made.jobs())
    assert [job.number for job in jobs] == list(range(6))
    first = jobs[0].spec
    assert (first.protocol, dict(first.network.options)) == (made.base.protocol, {})
    assert len({job.spec.identity for job in jobs}) == 6


def test_trials_train_on_the_split_and_never_on_test_images(root: Path) -> None:
    job = next(search(root).jobs())
    assert job.execution.prepared == (root / "data" / "tune" / "digits").absolute()
    assert (job.spec.data.train_images, job.spec.data.test_images) == (200, 40)


def test_every_trial_is_a_run_in_a_folder_of_its_own_below_the_store(root: Path) -> None:
    made = search(root)
    folders = [job.execution.folder for job in made.jobs()]
    assert {folder.parent for folder in folders} == {made.folder}
    assert made.folder.parent == root / "runs" / "tune"
    assert list(runs.folders(root / "runs")) == [], "a trial is no run of the plan"


def end(made: object, job: Job, *errors: float, outcome: str, iteration: int = 100) -> None:
    pretend(job, *errors, finished=outcome == "finished")
    made.end(job, outcome, iteration)  # type: ignore[attr-defined]


def test_a_stopped_trial_keeps_what_counted_and_frees_its_disk(root: Path) -> None:
    made = search(root)
    job = next(made.jobs())
    (job.execution.folder / CHECKPOINTS).mkdir()
    (job.execution.folder / STOP_FILE).touch()
    end(made, job, 80.0, 70.0, outcome="paused", iteration=20)
    (progress,) = trials(made.folder)
    assert progress.trial.state == "pruned"
    assert progress.error == 80.0, "the evaluation at 40 was made while the trial was being stopped"
    assert not (job.execution.folder / CHECKPOINTS).exists() and not (job.execution.folder / STOP_FILE).exists()


def test_a_killed_search_continues_what_had_begun_and_repeats_nothing(root: Path) -> None:
    made = search(root)
    jobs = made.jobs()
    done, stopped, going, failed = (next(jobs) for _ in range(4))
    end(made, done, 50.0, 40.0, outcome="finished")
    end(made, stopped, 80.0, outcome="paused", iteration=20)
    end(made, failed, outcome="failed: the loss is not finite")
    del made, jobs  # as a killed process, it lets go of its runs
    made = search(root)
    again = list(made.jobs())
    assert [job.number for job in again] == [2, 3, 4, 5]
    assert again[0].spec == going.spec and again[1].spec == failed.spec
    assert not {job.spec.identity for job in again[2:]} & {job.spec.identity for job in (done, stopped, going, failed)}
    assert made.missing() == 4


def test_more_trials_can_be_asked_for_later(root: Path) -> None:
    made = search(root, wanted=2)
    for job in made.jobs():
        end(made, job, 50.0, outcome="finished")
    assert (search(root).missing(), search(root).config.wanted) == (0, 2)
    assert [job.number for job in search(root, wanted=3).jobs()] == [2]


def test_a_failed_trial_is_named_with_its_reason(root: Path) -> None:
    made = search(root)
    job = next(made.jobs())
    Provenance("running", "few").write(job.execution.folder)
    made.end(job, "failed: the loss is not finite", 0)
    (progress,) = trials(made.folder)
    assert (progress.trial.state, progress.trial.reason, progress.error) == ("failed", "the loss is not finite", None)
    provenance = Provenance.read(job.execution.folder)
    assert provenance is not None and provenance.status == "failed"


def test_a_small_space_is_searched_to_its_end_and_no_setting_twice(root: Path) -> None:
    made = search(
        root, wanted=50, parameters={"protocol.flip": {"choices": [True, False]}, "options.t": {"low": 1, "high": 2}}
    )
    found = []
    for job in made.jobs():
        found.append((job.spec.protocol.flip, job.spec.network.options.get("t", 2)))
        end(made, job, 50.0 + len(found), outcome="finished")
    assert sorted(found) == [(False, 1), (False, 2), (True, 1), (True, 2)]


def test_a_search_that_was_begun_is_not_continued_unasked(root: Path) -> None:
    made = search(root)
    _check_begun(made, resume=False)
    next(made.jobs())
    with pytest.raises(UserError, match="was begun, 0 of 6 trials have ended; --resume continues it"):
        _check_begun(search(root), resume=False)
    _check_begun(search(root), resume=True)


def test_a_search_that_another_process_is_at_is_left_to_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "conf" / "tune").mkdir(parents=True)
    (root / "conf" / "tune" / "small.yaml").write_text(yaml.safe_dump(SPACE))
    made = search(root)
    monkeypatch.setattr(command, "_run", lambda _: pytest.fail("it was begun twice"))
    with lock_run(made.folder), pytest.raises(UserError, match="is being trained by process"):
        command.tune("small", "attention56", None, None, resume=True, root=root)


def test_other_settings_are_another_search(root: Path) -> None:
    one = search(root)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("gamma: 0.1", "gamma: 0.2"))
    other = search(root)
    fewer = search(root, trials=2)
    assert one.config.identity != other.config.identity == fewer.config.identity


@pytest.mark.parametrize(
    ("experiment", "change", "complaint"),
    [
        ("attention92", {}, "--experiment 'attention92': not in profile 'few', which has attention56, resnet164"),
        ("attention56-noise30", {}, "its labels are noisy"),
        ("attention56", {"batch_size": 208, "batch_norm_group": 208}, "batch_size = 208: must be at most 200, the"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    root: Path, experiment: str, change: dict[str, int], complaint: str
) -> None:
    tree = reading.read_yaml(root / "params.yaml")
    tree["protocol"].update(change)
    with pytest.raises(UserError, match=complaint):
        prepare(config.parse(tree), tree, ("small", space(parameters=FLIP)), experiment, None, root)


FLIP = {"protocol.flip": {"choices": [True, False]}}


def test_the_name_says_profile_space_and_any_other_experiment(root: Path) -> None:
    tree = reading.read_yaml(root / "params.yaml")
    settings = config.parse(tree)
    named = [
        prepare(settings, tree, ("small", space(parameters=FLIP)), experiment, None, root).config.name
        for experiment in ("attention56", "resnet164")
    ]
    assert named == ["few-small", "few-small-resnet164"]
    assert replace(search(root).config, wanted=1).folder_name.startswith("few-small-")
