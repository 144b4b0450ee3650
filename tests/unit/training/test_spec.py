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
OTHERS: dict[str, dict[str, Any]] = {
    "options": {"options": {"t": 3}},
    "noise": {"noise": 30, "noise_checksum": "cd" * 32},
    "checksum": {"checksum": "ef" * 32},
    "noise_checksum": {"noise": 30, "noise_checksum": "ef" * 32},
}
HUGE = 10**400


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
        changed = replace(spec, **{part: replace(inner, **OTHERS.get(f.name, {f.name: "another"}))})
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


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        (None, "experiment", "=1+1|x"),
        (None, "experiment", ".hidden"),
        (None, "numerics", HUGE),
        ("network", "name", "../../x<script>\x1b[31m"),
        ("network", "name", "`x`"),
        ("network", "num_classes", 0),
        ("network", "num_classes", HUGE),
        ("network", "options", {"learning": "\x1b[31m"}),
        ("network", "options", {"<b>": 1}),
        ("network", "options", {"t": HUGE}),
        ("network", "options", {"t": [1]}),
        ("data", "dataset", "Digits"),
        ("data", "checksum", "\x1b[31m"),
        ("data", "checksum", ""),
        ("data", "classes", ["a\nb"]),
        ("data", "classes", []),
        ("data", "noise", -5),
        ("data", "noise", 100),
        ("data", "noise", 30),  # without noisy labels
        ("data", "noise_checksum", "ab" * 32),  # of clean ones
        ("data", "train_images", 0),
        ("data", "test_images", HUGE),
        ("data", "image_size", -1),
        ("protocol", "milestones", [61]),
        ("protocol", "milestones", [36, 24]),
        ("protocol", "learning_rate", HUGE),
        ("protocol", "batch_norm_group", 7),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_configuration_that_no_settings_could_give_is_refused(
    spec: RunSpec, part: str | None, key: str, value: Any
) -> None:
    content = json.loads(json.dumps(spec.to_json()))
    (content[part] if part else content)[key] = value
    with pytest.raises(UserError, match=rf"config\.json: not the configuration of a run .*{key}") as refused:
        RunSpec.from_json(content)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


def test_a_run_is_evaluated_after_every_epoch_of_images_and_at_its_end(spec: RunSpec) -> None:
    data = replace(spec.data, train_images=1437)
    long = replace(spec, data=data, protocol=replace(spec.protocol, iterations=200, batch_size=16))
    assert evaluation_iterations(long) == [90, 180, 200]  # 1437 images are 89.8 batches of 16
    assert evaluation_iterations(replace(long, protocol=replace(long.protocol, iterations=6))) == [6]
