from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.settings import config
from pipeline.utils.errors import UserError

ROOT = Path(__file__).parents[3]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / config.PARAMS).read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(PARAMS)
    *parents, last = path.split(".")
    node = tree
    for key in parents:
        node = node[key]
    node[last] = value
    return tree


def leaves(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(tree, dict):
        found = [prefix] if prefix else []
        return found + [leaf for key, value in tree.items() for leaf in leaves(value, (*prefix, key))]
    return [prefix]


def test_the_committed_parameters_are_the_composed_digits_profile(tmp_path: Path) -> None:
    config.compose("digits", [], tmp_path / "params.yaml", ROOT)
    assert (tmp_path / "params.yaml").read_text() == (ROOT / config.PARAMS).read_text()


@pytest.mark.parametrize("profile", config.profiles(ROOT))
def test_every_profile_composes_into_a_valid_tree(profile: str, tmp_path: Path) -> None:
    assert config.compose(profile, [], tmp_path / "params.yaml", ROOT).profile == profile


@pytest.mark.parametrize("profile", ["cifar10", "cifar100"])
def test_the_full_profiles_are_the_papers_protocol_to_the_letter(profile: str, tmp_path: Path) -> None:
    protocol = config.compose(profile, [], tmp_path / "params.yaml", ROOT).protocol
    assert asdict(protocol) == {
        "iterations": 160_000,
        "batch_size": 64,
        "learning_rate": 0.1,
        "milestones": (64_000, 96_000),
        "gamma": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "padding": 4,
        "flip": True,
        "batch_norm_group": 64,
    }


def test_the_imagenet_profile_is_the_papers_recipe_with_every_network_and_test_size_of_table_7(tmp_path: Path) -> None:
    tree = config.compose("imagenet", [], tmp_path / "params.yaml", ROOT)
    protocol = tree.protocol
    assert (protocol.iterations, protocol.milestones) == (530_000, (200_000, 400_000, 500_000))
    assert (protocol.learning_rate, protocol.gamma, protocol.momentum, protocol.flip) == (0.1, 0.1, 0.9, True)
    assert tree.crops is not None and (tree.crops.train, tree.crops.test) == (224, 224)
    assert {name: experiment.test_crop or 224 for name, experiment in tree.experiments.items()} == {
        "resnet152": 224,
        "attention56": 224,
        "resnext101_32x4d": 224,
        "attentionnext56": 224,
        "inception_resnet_v1": 299,
        "attentioninception56": 299,
        "preresnet200": 320,
        "inception_resnet_v2": 299,
        "attention92": 320,
    }


@pytest.mark.parametrize(("profile", "fraction"), [("cifar10-short", 256), ("cifar10-64th", 64)])
def test_a_short_profile_drops_the_rate_at_the_papers_fractions(profile: str, fraction: int, tmp_path: Path) -> None:
    tree = config.compose(profile, [], tmp_path / "params.yaml", ROOT)
    protocol = tree.protocol
    assert protocol.iterations == 160_000 // fraction
    assert [m / protocol.iterations for m in protocol.milestones] == [0.4, 0.6]
    assert f"1/{fraction} of the paper's schedule ({protocol.iterations:,} iterations" in tree.label.statement


def test_the_digits_profile_has_every_experiment_of_tables_1_3_4_and_5(tmp_path: Path) -> None:
    experiments = config.compose("digits", [], tmp_path / "params.yaml", ROOT).experiments
    assert len(experiments) == 20
    for depth in (56, 92, 128, 164):
        assert experiments[f"attention{depth}-nal"].options.learning == "nal"
    for network in ("attention92", "resnet164"):
        assert [experiments[f"{network}-noise{n}"].noise for n in (10, 30, 50, 70)] == [10, 30, 50, 70]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("protocol.batch_size", -3, "params.yaml: protocol.batch_size = -3: Input should be greater than 0"),
        ("protocol.batch_size", "64", "protocol.batch_size = '64': Input should be a valid integer"),
        ("protocol.learning_rate", -0.1, "protocol.learning_rate = -0.1"),
        ("protocol.learning_rate", float("nan"), "protocol.learning_rate = nan"),
        ("checkpoints.seconds", float("inf"), "checkpoints.seconds = inf"),
        ("report.equivalence_margin", float("inf"), "report.equivalence_margin = inf"),
        ("protocol.momentun", 0.9, "protocol.momentun: unknown key, did you mean 'momentum'?"),
        ("protocol.milestones", [90, 30], r"milestones = [90, 30]: must rise and lie below iterations"),
        ("protocol.batch_norm_group", 48, "batch_norm_group = 48: must divide batch_size = 64"),
        ("resources.workers", 3, "resources.workers = 3: batch_size = 64 cannot be shared evenly by 3 workers"),
        ("experiments.attention56.network", "cifar_atention56", "did you mean 'cifar_attention56'?"),
        ("experiments.attention56.options", {"learning": "ral"}, "experiments.attention56.options.learning = 'ral'"),
        ("experiments.attention56.noise", 33, "experiments.attention56.noise = 33: must be one of data.noise_levels"),
        ("experiments.resnet164.options", {"p": 2}, "experiments.resnet164"),
        ("data.name", "cifar", "data.name = 'cifar'"),
        ("seeds", [0, 0], "seeds = [0, 0]: each seed may stand there once"),
        ("crops", {"train": 64, "test": 64, "colour": 0.1}, "crops: are for image files, which digits has none of"),
        ("experiments.attention56.test_crop", 64, "experiments.attention56: crops are for image files"),
        ("data.name", "imagenet", "crops: missing; imagenet has image files"),
        ("data.remote", "s3://bucket/datasets", "data.remote = 's3://bucket/datasets': must be null, digits has no"),
        ("data.remote", "/shared/datasets", "data.remote = '/shared/datasets': must be null or a URL such as s3://"),
        ("data.remote", "s3:/bucket", "data.remote = 's3:/bucket': must be null or a URL such as s3://bucket/datasets"),
        ("data.remote", "s3://", "data.remote = 's3://': must be null or a URL"),
        ("data.remote", "s3://a bucket", "data.remote = 's3://a bucket': must be null or a URL"),
        (
            "data.remote",
            "s3:///datasets",
            "must be null or a URL such as s3://bucket/datasets; this one names no bucket",
        ),
        ("data.remote", "file://datasets", "allowed is file:///datasets"),
        (
            "data.remote",
            "s4://bucket",
            "data.remote = 's4://bucket': must be null or a URL such as s3://bucket/datasets;",
        ),
        ("data.remote", "", "data.remote = '': must be null or a URL"),
        ("data.remote", 3, "data.remote = 3: Input should be a valid string"),
        ("precision", "float16", "precision = 'float16': Input should be 'float32' or 'bfloat16'"),
        ("resources.worker", 1, "resources.worker: unknown key, did you mean 'workers'?"),
        ("experiments.attention56.optoins", {}, "did you mean 'options'?"),
        ("experiments.attention56.options", {"lerning": "nal"}, "did you mean 'learning'?"),
        ("profil", "x", "profil: unknown key, did you mean 'profile'?"),
    ],
)
def test_a_mistake_is_named_in_one_line_with_key_value_and_what_is_allowed(path: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.parse(changed(path, value))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    tree = copy.deepcopy(PARAMS)
    del tree["protocol"]["padding"]
    with pytest.raises(UserError, match=r"^params.yaml: protocol.padding: missing$"):
        config.parse(tree)


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(leaves(PARAMS)), junk, st.sampled_from(["replace", "delete", "add"]))
@example(("experiments",), {}, "replace")
@example(("protocol", "milestones"), [2**70], "replace")
def test_whatever_stands_in_the_parameters_is_accepted_or_refused_in_one_line(
    path: tuple[Any, ...], value: Any, action: str
) -> None:
    tree = copy.deepcopy(PARAMS)
    node = tree
    for key in path[:-1]:
        node = node[key]
    if action == "delete":
        del node[path[-1]]
    elif action == "add":
        node[f"{path[-1]}_"] = value
    else:
        node[path[-1]] = value
    try:
        config.parse(tree)
    except UserError as error:
        message = str(error)
        assert message.startswith("params.yaml: ")
        assert "\n" not in message
        assert str(path[0]) in message or action == "replace"


@given(st.one_of(junk, st.recursive(junk, lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=3))))
def test_content_that_is_no_tree_of_settings_is_refused(content: Any) -> None:
    with pytest.raises(UserError):
        config.parse(content)


@pytest.mark.parametrize("text", ["a: [", "\t", "- 1", "", "{a: 1, a"])
def test_a_file_that_is_no_yaml_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        config.load(path)


def test_a_composition_that_fails_leaves_the_parameters_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("precious: 1\n")
    for overrides in (["protocol.batch_size=-1"], ["no.such.key=1"], ["protocol.batch_size=64="], ["][="]):
        with pytest.raises(UserError, match="profile digits"):
            config.compose("digits", overrides, path, ROOT)
    with pytest.raises(UserError, match=r"'data.source': not an override; allowed is KEY=VALUE"):
        config.compose("digits", ["data.source"], path, ROOT)
    with pytest.raises(UserError, match=r"profile = 'cifar': must be one of cifar10, "):
        config.compose("cifar", [], path, ROOT)
    assert path.read_text() == "precious: 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_edits_of_the_parameters_are_told_from_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed("protocol.iterations", 999)))
    assert config.drift(path, ROOT) == ["protocol.iterations: params.yaml has 999, conf/ has 135"]
