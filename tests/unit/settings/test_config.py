from __future__ import annotations

import copy
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.settings import config
from pipeline.settings.places import OWNED
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
        ("protocol.batch_size", -3, "params.yaml: protocol.batch_size = -3: must be above 0"),
        ("protocol.batch_size", "64", "protocol.batch_size = '64': must be a whole number"),
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
        ("seeds", [0, 0], "seeds = [0, 0]: 0 is there 2 times; all must differ"),
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
        ("data.remote", 3, "data.remote = 3: must be text"),
        ("data.noise_levels", [50, 50], "data.noise_levels = [50, 50]: 50 is there 2 times; all must differ"),
        ("experiments.attention56.options", {"p": 10**9}, "options.p = 1000000000: must be at most 16"),
        ("protocol.iterations", 10**30, "must be at most 10000000"),
        ("protocol.milestones", {}, "protocol.milestones: must be a list"),
        ("protocol.flip", None, "protocol.flip = null: must be true or false"),
        ("resources.threads", 10**9, "resources.threads = 1000000000: must be at most 1024"),
        ("resources.gpus", "x", "resources.gpus = 'x': must be 'auto' or a number"),
        ("seeds", [2**64], "seeds.0 = 18446744073709551616: must be at most 4294967295"),
        ("seeds", list(range(20_000)), "must have at most 5000 entries"),
        ("seeds", list(range(300)), "seeds: 300 seeds of 20 experiments are more than 5000 runs"),
        ("seeds", [], "seeds = []: must not be empty"),
        ("store", "a\0b", "store = 'a\\x00b': must be text without line breaks and control characters"),
        ("store", "\ud800", "store = '\\ud800': must be text without"),
        ("store", ".git", "store = '.git': must be a folder of its own, such as runs"),
        ("store", "./plan.json", "store = './plan.json': must be a folder of its own"),
        ("store", "published/runs", "must be a folder of its own"),
        ("store", "runs/../data", "must be a folder of its own"),
        ("store", str(Path.cwd() / "conf/runs"), "must be a folder of its own"),
        ("store", "~/runs", "must be a folder of its own"),
        ("store", ".", "must be a folder of its own"),
        ("store", "/", "must be a folder of its own"),
        ("store", "//conf/../" + str(Path.cwd() / "reports"), "must be a folder of its own"),
        ("store", f"/{Path.cwd() / 'reports'}", "must be a folder of its own"),
        ("store", f"file://{Path.cwd() / 'reports'}", "must be a folder of its own"),
        ("store", str(Path.cwd().parent), "must be a folder of its own"),
        ("store", "/etc", "must be a folder of its own"),
        ("store", "x" * 300, "must have parts of at most 255 bytes"),
        ("store", "s3:// runs", "must be a folder, or a URL such as s3://bucket/runs"),
        ("a\nb", 1, "params.yaml: a\\nb: a key must be text without line breaks and control characters"),
        ("label.statement", "\x1b[31mred", "label.statement = '\\x1b[31mred': must be text without"),
        ("experiments." + "a" * 300, {}, "must be a name of lower-case letters, digits, '-' and '_', at most 100"),
        ("experiments.a b", {}, "experiments.a b = 'a b': must be a name of"),
        ("experiments.\x1b[31m", {}, "experiments.\\x1b[31m: a key must be text"),
        ("precision", "float16", "precision = 'float16': must be 'float32' or 'bfloat16'"),
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("\t", "line 1: not valid YAML"),
        ("- 1", "must hold keys and values, not list"),
        ("", "must hold keys and values"),
        ("{a: 1, a", "not valid YAML"),
        ("a: 1\nb: 2\na: 3", "line 3: not valid YAML (the key 'a' is there twice)"),
        ("a:\n  b: 1\n  b: 1", "line 3: not valid YAML (the key 'b' is there twice)"),
        ("a: " + 5000 * "9", "line 1: not valid YAML"),
        ("a: 2026-02-31", "line 1: not valid YAML ('2026-02-31' is not a valid number or date)"),
        ("a: 2026-02-01", "a = '2026-02-01': a date must be put in quotes"),
        ("1: a", "1: a key must be text; put it in quotes"),
        ("a: !!int abc", "line 1: a tag (!!int) is not allowed"),
        ("<<: {a: 1}\na: 2", "line 1: not valid YAML (the key << (a merge) is not allowed; write the keys out)"),
        ("a: 0207", "line 1: not valid YAML ('0207' is not a decimal number; put text in quotes)"),
        ("a: 2:15", "'2:15' is not a decimal number"),
        ("a: 2:15.5", "'2:15.5' is not a decimal number"),
        ("a: 0x10", "'0x10' is not a decimal number"),
        ("a: 1_000", "'1_000' is not a decimal number"),
        ("a: !!set {b}", "line 1: a tag (!!set) is not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: a tag ("),
        ("a: &a [*a]", "line 1: an alias (*a) is not allowed; write the value out"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2: an alias (*a) is not allowed"),
        ("a: " + 500 * "[" + 500 * "]", "more than 20 levels of keys and lists are not allowed"),
        ("a: " + 100_000 * "[", "more than 20 levels"),
        ("a: 1 #" + 2**21 * "x", "at most 1048576 are allowed"),
        ("a: \x1b[31m", "not valid YAML"),
        ("a: \0", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_plain_yaml_is_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        config.load(path)
    assert str(refused.value).startswith(f"{path}: ") and words in str(refused.value)
    assert str(refused.value).isprintable()


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff")
    for path in (tmp_path, tmp_path / "loop.yaml", tmp_path / "bytes.yaml", tmp_path / "none.yaml"):
        with pytest.raises(UserError, match=str(path)):
            config.load(path)


def test_no_store_may_lie_in_what_the_project_keeps() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = {name.partition("/")[0] for name in tracked.splitlines()}
    assert {name for name in kept if not name.startswith(".")} <= OWNED


BAD_OVERRIDES = (
    "protocol.batch_size=-1", "no.such.key=1", "protocol.batch_size=64=", "][=", "data.source", "=5", "seeds=0,1",
    "store=${oc.env:NOT_THERE}", "store=${store}", "\x1b[31m=1", "protocol.iterations=" + "9" * 5000, "hydra.run.dir=x",
    "profile=cifar10", "label.statement=${oc.env:HOME}",
    "seeds=" + 500 * "[" + 500 * "]", "label=[1]",
)  # fmt: skip


def test_a_composition_that_fails_leaves_the_parameters_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("precious: 1\n")
    for override in BAD_OVERRIDES:
        with pytest.raises(UserError) as refused:
            config.compose("digits", ["precision=float32", override], path, ROOT)
        message = str(refused.value)
        assert message.startswith("profile digits: ") and "Hydra" not in message and message.isprintable()
        assert "protocol.batch_size" in override or f"{override!r:.70}"[:-1] in message
        assert "protocol.batch_size" in override or "not an override; allowed is KEY=VALUE" in message
    with pytest.raises(UserError, match=r"profile = 'cifar': must be one of cifar10, "):
        config.compose("cifar", [], path, ROOT)
    assert path.read_text() == "precious: 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_edits_of_the_parameters_are_told_from_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed("protocol.iterations", 999)))
    assert config.drift(path, ROOT) == ["protocol.iterations: params.yaml has 999, conf/ has 135"]


@pytest.mark.parametrize("command", [["plan"], ["launch", "--dry-run"], ["fetch", "digits"], ["report"]])
@pytest.mark.parametrize("text", ["a: !!int abc", "a: &a [*a]", 'profile: "\\e[31m"', '"a\\nb": 1', "profile: digits"])
def test_a_command_with_bad_settings_is_one_line_and_status_2(
    command: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / config.PARAMS).write_text(text)
    assert main(command) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.startswith("error: ") and f"{config.PARAMS}: " in out.err
    assert out.err.rstrip("\n").isprintable()
    assert [path.name for path in tmp_path.iterdir()] == [config.PARAMS]
