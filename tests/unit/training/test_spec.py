from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from pipeline.runs.spec import RunSpec, evaluation_iterations
from pipeline.utils.errors import UserError
from tests.unit.tracking.run_folders import make_spec

CHANGES: dict[str, Any] = {
    "seed": 1,
    "precision": "bfloat16",
    "channels_last": False,
    "compile": True,
    "numerics": -1,
}


@pytest.fixture
def spec() -> RunSpec:
    return make_spec()


@pytest.mark.parametrize("key", sorted(CHANGES))
def test_identity_changes_with_every_setting_that_changes_numbers(spec: RunSpec, key: str) -> None:
    assert replace(spec, **{key: CHANGES[key]}).identity != spec.identity


@pytest.mark.parametrize("part", ["network", "data", "protocol"])
def test_identity_changes_with_every_part_of_network_data_and_protocol(spec: RunSpec, part: str) -> None:
    inner = getattr(spec, part)
    for f in fields(inner):
        if f.name == "classes":
            continue  # names of labels; the labels themselves are in the checksum
        changed = replace(spec, **{part: replace(inner, **{f.name: "another"})})
        assert changed.identity != spec.identity, f"{part}.{f.name} does not count"


def test_identity_knows_nothing_of_the_experiments_name(spec: RunSpec) -> None:
    assert replace(spec, experiment="renamed").identity == spec.identity


def test_a_specification_survives_json(spec: RunSpec) -> None:
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_configuration_whose_identity_does_not_fit_is_refused(spec: RunSpec) -> None:
    content = spec.to_json() | {"seed": 5}
    with pytest.raises(UserError, match=r"config\.json: identity = .* does not belong"):
        RunSpec.from_json(content)


@pytest.mark.parametrize("content", [{}, {"experiment": "x"}, {"network": 3}])
def test_content_that_is_no_configuration_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"elsewhere\.json: not the configuration of a run"):
        RunSpec.from_json(content, "elsewhere.json")


def test_a_run_is_evaluated_after_every_epoch_of_images_and_at_its_end(spec: RunSpec) -> None:
    data = replace(spec.data, train_images=1437)
    long = replace(spec, data=data, protocol=replace(spec.protocol, iterations=200, batch_size=16))
    assert evaluation_iterations(long) == [90, 180, 200]  # 1437 images are 89.8 batches of 16
    assert evaluation_iterations(replace(long, protocol=replace(long.protocol, iterations=6))) == [6]
