"""Spaces: what they refuse, and what their values become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import config, reading
from pipeline.tuning.space import Space, check_edges, load_space, merged, override, own_values
from pipeline.utils.errors import UserError
from tests.unit.tuning.conftest import PARAMS, SPACE, space

ROOT = Path(__file__).parents[3]
PROFILES = sorted(path.stem for path in (ROOT / "conf" / "profile").glob("*.yaml"))


def parameters(**changed: Any) -> dict[str, Any]:
    return {**SPACE["parameters"], **changed}


@pytest.mark.parametrize("name", ["optimiser", "architecture", "augmentation"])
def test_the_spaces_that_ship_fit_the_active_profile_and_hold_its_own_settings(name: str) -> None:
    stem, shipped = load_space(name, ROOT)
    assert stem == name
    settings, tree = config.load(ROOT / "params.yaml"), reading.read_yaml(ROOT / "params.yaml")
    check_edges(shipped, tree, "attention56", settings.protocol.iterations, name)
    assert own_values(shipped, settings, "attention56") is not None


def test_a_space_may_be_any_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((ROOT / "conf" / "tune" / "augmentation.yaml").read_text())
    assert load_space(str(path), ROOT) == ("mine", load_space("augmentation", ROOT)[1])


def test_an_unknown_space_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match=r"--space 'optimizer': no file .*allowed are architecture, augmentation, optimi"
    ):
        load_space("optimizer", ROOT)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"trials": 0}, "trials = 0: "),
        ({"trails": 3}, r"trails: unknown key, did you mean 'trials'\?"),
        ({"stopping": {"grace": 1.5, "reduction_factor": 3}}, "stopping.grace = 1.5: "),
        ({"stopping": {"grace": 0.5, "reduction_factor": 1}}, "stopping.reduction_factor = 1: "),
        ({"parameters": {}}, "parameters"),
        ({"parameters": parameters(**{"protocol.iterations": {"low": 1, "high": 9}})}, "'protocol.iterations' cannot"),
        ({"parameters": {"protocol.gamma": {"low": 0.5, "high": 0.1}}}, "low must be less than high"),
        (
            {"parameters": {"protocol.gamma": {"low": "1e-5", "high": 0.1}}},
            "low = '1e-5': .*1.0e-5 is one, 1e-5 is",
        ),
        (
            {"parameters": {"protocol.gamma": {"low": 0, "high": 10**400}}},
            "high = a number of 401 digits: must",
        ),
        ({"parameters": {"protocol.gamma": {"low": 0, "high": 0.1, "log": True}}}, "must be above 0 where log is true"),
        ({"parameters": {"protocol.flip": {"choices": [True, True]}}}, "each value may stand there once"),
        ({"parameters": {"protocol.milestones.2": {"low": 0.1, "high": 0.2}}}, "must stand there in this order"),
        (
            {"parameters": parameters(**{"protocol.milestones.2": {"low": 0.5, "high": 0.9}})},
            r"protocol.milestones.2: must be a range of shares of the iterations, from 0.6 \(the end of the one",
        ),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_in_one_line(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=f"^a space: .*{complaint}") as refused:
        space(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "limits", "experiment", "complaint"),
    [
        ("protocol.learning_rate", {"low": -0.1, "high": 0.1}, "attention56", "protocol.learning_rate = -0.1"),
        ("protocol.padding", {"low": 0, "high": 100}, "attention56", "protocol.padding = 100"),
        ("protocol.padding", {"low": 0.5, "high": 1.5}, "attention56", "protocol.padding = 0.5"),
        ("options.t", {"low": 1, "high": 2}, "resnet164", "unknown option 't'"),
        ("options.activation", {"choices": ["mixed", "none"]}, "attention56", "options.activation = 'none'"),
    ],
)
def test_the_edges_of_a_space_are_tried_before_anything_starts(
    name: str, limits: dict[str, Any], experiment: str, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        check_edges(space(parameters={name: limits}), PARAMS, experiment, 100, "a space")


def test_milestones_are_shares_of_the_iterations_and_always_rise() -> None:
    values = {"protocol.milestones.1": 0.6, "protocol.milestones.2": 0.6, "protocol.gamma": 0.2}
    assert override(values, "any", 100) == {"protocol": {"milestones": [60, 61], "gamma": 0.2}}
    assert override(values, "any", 1000)["protocol"]["milestones"] == [600, 601]


def test_options_are_those_of_the_searched_experiment_alone() -> None:
    over = override({"options.t": 3}, "attention56", 100)
    assert over == {"experiments": {"attention56": {"options": {"t": 3}}}}
    tree = merged(PARAMS, over)
    assert tree["experiments"]["attention56"] == {"network": "cifar_attention56", "options": {"t": 3}}
    assert tree["experiments"]["resnet164"] == PARAMS["experiments"]["resnet164"]
    assert "options" not in PARAMS["experiments"]["attention56"], "the tree itself stays as it is"


def test_the_own_settings_are_found_where_the_space_holds_them_and_only_there() -> None:
    settings = config.parse(PARAMS)
    assert own_values(space(), settings, "attention56") == {
        "protocol.learning_rate": 0.1,
        "protocol.milestones.1": 0.4,
        "protocol.milestones.2": 0.6,
        "options.t": 2,
        "options.activation": "mixed",
    }
    elsewhere = parameters(**{"protocol.learning_rate": {"low": 0.2, "high": 0.3}})
    assert own_values(space(parameters=elsewhere), settings, "attention56") is None
    third = parameters(**{"protocol.milestones.3": {"low": 0.9, "high": 0.95}})
    assert own_values(space(parameters=third), settings, "attention56") is None


@pytest.mark.parametrize("value", [0.0123456789, 0.999999, 0.00100001])
def test_drawn_numbers_have_few_digits_and_stay_within_the_limits(value: float) -> None:
    parameter = space().parameters["protocol.learning_rate"]
    tidy = parameter.tidy(value)
    assert parameter.contains(tidy)
    assert isinstance(tidy, float) and abs(tidy - value) <= 1e-3 * value
    assert len(repr(tidy).replace(".", "").strip("0")) <= 4


def test_a_space_survives_being_written_down() -> None:
    assert reading.check(Space, space().model_dump(mode="json"), "again") == space()
