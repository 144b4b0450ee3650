"""What `make repro` says at its end: equal, within or outside of what is published."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.compare import compare
from pipeline.utils.errors import UserError

EXPECTED = {"attention56": {"low": 3.0, "high": 7.0, "n": 4, "trained": {"attention56-s0": 4.44}}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def commit(project: Path, summary: dict[str, Any]) -> None:
    write(project, summary)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(project), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(project), *identity, "commit", "-qm", "report"], check=True)


def write(project: Path, summary: dict[str, Any]) -> None:
    path = project / "reports/digits/summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary))


def summary(error: float, predictions: dict[str, Any] | None = None) -> dict[str, Any]:
    content = json.loads(json.dumps(predictions if predictions is not None else EXPECTED))
    for entry in content.values():
        entry["trained"] = dict.fromkeys(entry["trained"], error)
    return {"tables": {"table1": {"cell": {"measured": error}}}, "predictions": content}


def test_equal_numbers_are_called_equal(project: Path) -> None:
    commit(project, summary(4.44))
    text = compare("digits", project)
    assert "all " in text and "numbers are equal" in text
    assert "of the 1 runs trained here: 1 equal to the committed results, 0 within" in text


def test_a_number_within_the_prediction_interval_is_called_within(project: Path) -> None:
    commit(project, summary(4.44))
    write(project, summary(5.0))
    text = compare("digits", project)
    assert "0 equal" in text and "1 within the 95 % prediction interval of the 4 published seeds, 0 outside" in text
    assert "differ from the committed report" in text


def test_a_number_outside_is_named_with_what_was_expected(project: Path) -> None:
    commit(project, summary(4.44))
    write(project, summary(9.0))
    text = compare("digits", project)
    assert "1 outside" in text and "attention56-s0: 9.00 %, expected 3.00 to 7.00 %" in text


def test_numbers_that_differ_only_in_digits_that_are_not_printed_are_said_to(project: Path) -> None:
    commit(project, summary(4.44))
    write(project, summary(4.440001))
    assert "agrees with the committed report in all printed digits" in compare("digits", project)


@pytest.mark.parametrize("predictions", [[1], {"a": {}}, {"a": 5}, {"a": {**EXPECTED["attention56"], "low": "x"}}])
@pytest.mark.parametrize("committed", [False, True])
def test_predictions_that_are_none_are_one_line(project: Path, predictions: Any, committed: bool) -> None:
    bad, good = {"predictions": predictions}, summary(4.44)
    commit(project, bad if committed else good)
    write(project, good if committed else bad)
    with pytest.raises(UserError, match=r"summary\.json: (predictions|has no predictions)") as error:
        compare("digits", project)
    assert "\n" not in str(error.value)


def test_a_committed_summary_that_is_no_json_is_one_line(project: Path) -> None:
    (project / "reports/digits").mkdir(parents=True)
    (project / "reports/digits/summary.json").write_text("{")
    git = ["git", "-C", str(project), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "report"], check=True)
    write(project, summary(4.44))
    with pytest.raises(UserError, match=r"HEAD:reports/digits/summary\.json: not valid JSON"):
        compare("digits", project)


def test_without_published_seeds_nothing_is_predicted(project: Path) -> None:
    commit(project, summary(4.44, {}))
    assert "interval" not in compare("digits", project)


def test_without_a_committed_report_the_prediction_still_counts(project: Path) -> None:
    write(project, summary(4.44))
    text = compare("digits", project)
    assert "no report of this profile is committed yet" in text and "0 equal" in text and "1 within" in text
