"""`dvc exp run` keeps the settings of params.yaml, and works in the ways that DVC documents."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import Clone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def experiments(clone: Clone) -> Clone:
    """A clone with an identity of git, and one short run."""
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        clone.run("git", "config", key, value)
    path = clone.root / "conf" / "profile" / "seconds.yaml"
    lines = [
        line for line in path.read_text().splitlines() if "attention56-nal" not in line and "resnet164" not in line
    ]
    path.write_text("\n".join(lines).replace("noise_levels: [30]", "noise_levels: []") + "\n")
    clone.run(sys.executable, "-m", "pipeline", "compose", "seconds")
    clone.run("git", "commit", "-qam", "one run")
    return clone


def settings(clone: Clone) -> dict[str, object]:
    tree: dict[str, object] = yaml.safe_load((clone.root / "params.yaml").read_text())
    return tree


def stored(clone: Clone) -> set[str]:
    return {
        path.name.rpartition("-")[0]
        for path in (clone.root / "runs").glob("*-s*-*")
        if (path / "metrics.json").exists()
    }


def test_edits_and_profile_of_params_yaml_are_kept_and_a_value_is_set(experiments: Clone) -> None:
    path = experiments.root / "params.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.0001", "weight_decay: 0.0002"))
    experiments.run("dvc", "exp", "run", "-S", "seeds=[1]", "-n", "kept")
    tree = settings(experiments)
    assert (tree["profile"], tree["seeds"]) == ("seconds", [1])
    assert tree["protocol"]["weight_decay"] == 0.0002  # type: ignore[index]
    assert stored(experiments) == {"attention56-s1"}


def test_another_profile_is_refused_in_one_line_while_there_are_edits(experiments: Clone) -> None:
    before = (experiments.root / "params.yaml").read_bytes()
    done = experiments.run("dvc", "exp", "run", "-S", "profile=smoke", check=False)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert "would discard edits of params.yaml" in line and "python -m pipeline compose smoke" in line
    assert (experiments.root / "params.yaml").read_bytes() == before


def test_an_unknown_profile_is_refused_in_one_line_with_the_nearest(experiments: Clone) -> None:
    done = experiments.run("dvc", "exp", "run", "-S", "profile=smok", check=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert line.startswith("ERROR: profile = 'smok': did you mean 'smoke'? allowed: cifar10, ")


def test_an_experiment_in_a_temporary_copy_keeps_its_runs_here_and_can_be_applied(experiments: Clone) -> None:
    experiments.run("dvc", "exp", "run", "--temp", "-S", "seeds=[2]", "-n", "elsewhere")
    assert settings(experiments)["seeds"] == [1], "the working folder is as it was"
    assert "attention56-s2" in stored(experiments)
    experiments.run("dvc", "exp", "apply", "elsewhere")
    assert settings(experiments)["seeds"] == [2]
    metrics = experiments.root / "results" / "seconds" / "attention56" / "seed2" / "metrics.json"
    assert json.loads(metrics.read_text())["iterations"] == 3


def test_a_queued_experiment_is_run(experiments: Clone) -> None:
    experiments.run("dvc", "exp", "run", "--queue", "-S", "seeds=[3]", "-n", "queued")
    experiments.run("dvc", "queue", "start")
    for _ in range(120):
        status = experiments.run("dvc", "queue", "status").stdout
        if "Success" in status or "Failed" in status:
            break
        time.sleep(5)
    assert "Success" in status, experiments.run("dvc", "queue", "logs", "queued", check=False).stdout
    assert "attention56-s3" in stored(experiments)
    experiments.run("dvc", "queue", "stop")


def test_experiments_are_compared_in_120_columns(experiments: Clone) -> None:
    drop = r".*/.*|plan\.json|identity.*|State|Executor"  # as docs/dvc.md has it: also files that stages depend on
    table = experiments.run("dvc", "exp", "show", "--only-changed", "--drop", drop, "--no-pager", COLUMNS="120").stdout
    assert "kept" in table and "ARL56" in table and "seeds" in table, table
    assert max(map(len, table.splitlines())) <= 120


def test_the_profile_is_switched_where_nothing_would_be_lost(experiments: Clone) -> None:
    experiments.run("git", "checkout", "-q", "--", ".")
    experiments.run("dvc", "exp", "run", "-S", "profile=smoke", "plan", "-n", "switched")
    assert settings(experiments)["profile"] == "smoke"


def test_without_an_identity_dvc_says_what_is_missing_and_doctor_what_to_type(
    experiments: Clone, tmp_path: Path
) -> None:
    experiments.run("git", "config", "--unset", "user.email")
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(tmp_path), "EMAIL": ""}
    done = experiments.run("dvc", "exp", "run", "-S", "seeds=[4]", "plan", check=False, **nobody)
    assert "Git user name and email must be configured" in done.stderr
    found = experiments.run(sys.executable, "-m", "pipeline", "doctor", check=False, **nobody).stdout
    assert 'type: git config --global user.name "..."' in found
