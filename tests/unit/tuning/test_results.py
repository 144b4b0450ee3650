"""Results of a search: table, figures, override."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml

from pipeline.settings import config, reading
from pipeline.tuning.figures import draw_importance
from pipeline.tuning.override import read_arguments
from pipeline.tuning.results import SearchResults, as_markdown, best_override, verdict, write_results
from pipeline.tuning.search import Search
from pipeline.tuning.study import evaluator, study_of
from pipeline.tuning.trials import SearchConfig, searches
from pipeline.utils.errors import UserError
from tests.unit.tuning.conftest import pretend, search, space

ROOT = Path(__file__).parents[3]


@pytest.fixture
def done(root: Path) -> Search:
    """Six trials: the own settings at 50 %, a better one at 30 %, three stopped, one failed."""
    made = search(root)
    for job in made.jobs():
        if job.number in (0, 2):
            pretend(job, 80.0, 70.0, 60.0, 55.0, 50.0 if job.number == 0 else 30.0)
            made.end(job, "finished", 100)
        elif job.number == 5:
            made.end(job, "failed: the loss is not finite", 0)
        else:
            pretend(job, 90.0, 85.0 + job.number, finished=False)
            made.end(job, "paused", 40)
    return made


def test_the_best_finished_trial_comes_first_and_failed_ones_last(done: Search) -> None:
    found = SearchResults.read(done.folder)
    assert [progress.trial.number for progress in found.trials] == [2, 0, 1, 3, 4, 5]
    assert found.best is found.trials[0] and found.own is found.trials[1]


def test_a_stopped_trial_is_never_the_best_however_good(root: Path) -> None:
    made = search(root, wanted=1)
    for job in made.jobs():
        pretend(job, 1.0, finished=False)
        made.end(job, "paused", 20)
    assert SearchResults.read(made.folder).best is None
    assert verdict(SearchResults.read(made.folder)) == ["No trial has finished."]


def test_the_files_are_written_and_hold_every_trial(done: Search, tmp_path: Path) -> None:
    _, target = write_results(done.folder, tmp_path / "reports")
    assert {path.name for path in target.iterdir()} == {
        "trials.csv",
        "trials.md",
        "best.yaml",
        "coordinates.svg",
        "importance.svg",
    }
    with (target / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["2", "0", "1", "3", "4", "5"]
    assert [row["state"] for row in rows] == ["finished"] * 2 + ["pruned"] * 3 + ["failed"]
    assert rows[0]["validation_error"] == "30.0" and rows[-1]["validation_error"] == ""
    page = (target / "trials.md").read_text()
    assert page.splitlines()[2] == "Made up for a test."
    assert "Errors are those of 40 other training images, held out; no test image was used" in page
    assert "6 of 6 trials: 2 finished, 3 stopped early, 1 failed" in page
    assert "| 5 | failed: the loss is not finite |" in page
    assert "30.00 ± 7.25" in page


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("trial.json", {"values": "abc"}, "values = 'abc': "),
        ("trial.json", {"values": {}}, "values: must have protocol.learning_rate, "),
        ("trial.json", {"values": {"options.t": 1}}, "values: must have protocol.learning_rate, "),
        ("trial.json", {"values.protocol.learning_rate": 5.0}, "values.protocol.learning_rate = 5.0: not in the space"),
        ("trial.json", {"values.protocol.learning_rate": "x"}, "values.protocol.learning_rate = 'x': not in the space"),
        ("trial.json", {"values.options.t": 1.5}, "values.options.t = 1.5: not in the space"),
        ("trial.json", {"state": [1]}, "state = [1]: "),
        ("trial.json", {"state": "nonsense"}, "state = 'nonsense': "),
        ("trial.json", {"iteration": "x"}, "iteration = 'x': "),
        ("trial.json", {"number": "1"}, "number = '1': "),
        ("trial.json", {"number": -1}, "number = -1: "),
        ("search.json", {"wanted": "x"}, "wanted = 'x': "),
        ("search.json", {"wanted": None}, "wanted = None: "),
        ("search.json", {"wanted": -5}, "wanted = -5: "),
        ("search.json", {"validation_images": 0}, "validation_images = 0: "),
        ("search.json", {"name": "a'b"}, 'name: "a\'b" is not a name'),
        ("search.json", {"identity": "a' or '1' = '1"}, "is not a name"),
        ("search.json", {"space": []}, "space = []: "),
    ],
)
def test_a_damaged_file_of_a_search_is_named_in_one_line(
    root: Path, name: str, change: dict[str, object], complaint: str
) -> None:
    made = search(root)
    job = next(made.jobs())
    path = (job.execution.folder if name == "trial.json" else made.folder) / name
    content = json.loads(path.read_text())
    for key, value in change.items():
        group, _, inner = key.partition(".")
        (content[group] if inner else content)[inner or key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        SearchResults.read(made.folder)
    assert str(error.value).startswith(f"{path}: ") and complaint in str(error.value) and "\n" not in str(error.value)


def test_a_search_whose_file_is_a_loop_of_links_is_found_and_named(root: Path) -> None:
    made = search(root)
    path = made.folder / "search.json"
    path.unlink()
    path.symlink_to(path)
    assert list(searches(root / "runs")) == [made.folder]
    with pytest.raises(UserError, match=r"search\.json: Too many levels of symbolic links"):
        SearchConfig.read(made.folder)


def test_texts_of_a_search_cannot_leave_their_place_on_its_page(root: Path) -> None:
    hostile = "a | b\n<img src=x> **c** [l](javascript:x) \x1b[31m"
    made = search(root, wanted=1)
    made.config = replace(made.config, statement=hostile)
    made.config.write(made.folder)
    made.end(next(made.jobs()), f"failed: {hostile}", 0)
    page = as_markdown(SearchResults.read(made.folder), [])
    assert not re.search(r"(?<!\\)(<|\*\*|\[l)|\x1b", page) and page.count("img src=x") == 2
    assert len(re.findall(r"(?<!\\)\|", page.splitlines()[-1])) == 10


def test_the_same_trials_give_the_same_bytes(done: Search, tmp_path: Path) -> None:
    _, one = write_results(done.folder, tmp_path / "one")
    _, other = write_results(done.folder, tmp_path / "other")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_the_verdict_claims_no_more_than_the_images_allow(done: Search) -> None:
    (sentence,) = verdict(SearchResults.read(done.folder))
    assert "20.00 points less than the profile's own settings (50.00 %); that is not more than twice" in sentence
    assert "(10.72 points)" in sentence and "several seeds" in sentence


def test_the_override_makes_the_profile_train_what_the_best_trial_trained(done: Search, tmp_path: Path) -> None:
    found = SearchResults.read(done.folder)
    assert found.best is not None
    text = best_override(found)
    assert text.startswith("# Trial 2 of search few-small-")
    assert "python -m pipeline compose few --override" in text
    from pipeline.tuning.space import merged

    settings = config.parse(merged(done.tree, yaml.safe_load(text)))
    wanted = done.spec(found.best.trial.number, found.best.trial.values)
    assert settings.protocol == wanted.protocol
    options = settings.experiments["attention56"].options.model_dump(exclude_none=True)
    assert options == dict(wanted.network.options)


def test_compose_takes_an_override_and_changes_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text(
        "protocol: { learning_rate: 0.05, milestones: [20, 100], nesterov: false }\n"
        "experiments: { attention56: { options: { t: 3, activation: channel } } }\n"
    )
    arguments = read_arguments(file)
    assert arguments[:3] == [
        "++protocol.learning_rate=0.05",
        "++protocol.milestones=[20,100]",
        "++protocol.nesterov=false",
    ]
    for folder in ("conf", "models", "pipeline"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    command = [sys.executable, "-m", "pipeline", "compose", "digits"]
    subprocess.run(command, cwd=tmp_path, check=True)
    before = reading.read_yaml(tmp_path / "params.yaml")
    subprocess.run([*command, "--override", "best.yaml"], cwd=tmp_path, check=True)
    after = reading.read_yaml(tmp_path / "params.yaml")
    assert after["experiments"]["attention56"]["options"] == {"t": 3, "activation": "channel"}
    assert after["protocol"] == {
        **before["protocol"],
        "learning_rate": 0.05,
        "milestones": [20, 100],
        "nesterov": False,
    }
    assert {key for key in after if after[key] != before[key]} == {"protocol", "experiments"}


def test_an_override_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(UserError, match="must hold keys and values"):
        read_arguments(tmp_path / "empty.yaml")


def test_the_parameter_that_matters_is_found() -> None:
    searched = space(
        parameters={"protocol.gamma": {"low": 0.1, "high": 0.9}, "protocol.momentum": {"low": 0.1, "high": 0.9}}
    )
    grid = [0.1 + 0.1 * step for step in range(9)]
    measured = [({"protocol.gamma": x, "protocol.momentum": y}, 100 * x + y) for x in grid for y in grid]
    shares = optuna.importance.get_param_importances(study_of(searched, measured), evaluator=evaluator())
    assert next(iter(shares)) == "protocol.gamma"
    assert shares["protocol.gamma"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)


def test_of_too_few_or_equal_errors_nothing_is_said() -> None:
    values = {"protocol.gamma": 0.5}
    searched = space(parameters={"protocol.gamma": {"low": 0.1, "high": 0.9}})
    assert draw_importance(searched, [(values, 1.0), (values, 2.0)], "search", 20) is None
    assert draw_importance(searched, [(values, 1.0)] * 9, "search", 20) is None
