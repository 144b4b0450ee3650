"""The plan: what its file says, and that a damaged one is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs.spec import RunSpec
from pipeline.settings import config
from pipeline.settings.plan import Plan
from pipeline.settings.planning import build_plan
from pipeline.utils.errors import UserError
from tests.plans import make_plan
from tests.unit.tracking.run_folders import make_spec

ROOT = Path(__file__).parents[3]
NAME = "attention56-s0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_plan([make_spec(), make_spec(seed=1)]).write(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_a_plan_survives_its_file_and_keeps_identities_apart(path: Path) -> None:
    content, plan = json.loads(path.read_text()), Plan.read(path)
    assert list(content) == ["profile", "labels", "report", "execution", "identity", "runs"]
    assert list(content["execution"]) == ["resources", "checkpoints", "store", "tracking", "remote"]
    assert content["identity"] == {run.name: run.identity for run in plan.runs.values()}
    assert plan.to_json() == content and Plan.from_json(content) == plan
    assert plan.run("attention56", 1).spec == make_spec(seed=1)


def test_a_plan_of_before_there_were_remotes_is_read(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["execution"]["remote"]
    assert Plan.from_json(content).remote is None


def test_a_plan_is_a_table_with_one_row_for_each_run(path: Path) -> None:
    first, second = Plan.read(path).to_rows()
    assert (first["run"], first["seed"], second["run"], second["seed"]) == (NAME, 0, "attention56-s1", 1)
    assert first["identity"] == make_spec().identity and first["network"] == "cifar_attention56"


def test_a_plan_without_data_has_every_run_but_no_identity_and_no_cost() -> None:
    tree = config.load(ROOT / config.PARAMS)
    plan = build_plan(tree, None)
    assert len(plan.runs) == len(tree.experiments) * len(tree.seeds)
    run = plan.runs[NAME]
    assert run.identity is None and run.counts is None
    with pytest.raises(UserError, match="its cost depends on the data; run `python -m pipeline plan` first"):
        _ = run.cost
    with pytest.raises(UserError, match=f"runs.{NAME}"):
        _ = run.spec


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no runs": (lambda c: c.pop("runs"), "runs: missing"),
    "no labels, as in old plans": (lambda c: c.pop("labels"), "labels: missing"),
    "a list for the execution": (lambda c: c.update(execution=[]), "execution = []: must be keys and values"),
    "no workers": (lambda c: c["execution"]["resources"].pop("workers"), "execution.resources.workers: missing"),
    "a word for the seed": (lambda c: c["runs"][NAME].update(seed="0"), f"runs.{NAME}.seed = '0'"),
    "another name": (lambda c: c["runs"][NAME].update(experiment="x"), f"runs.{NAME}: is not the run of that name"),
    "a path for a name": (
        lambda c: c["runs"][NAME].update(experiment="../../x"),
        f"runs.{NAME}.experiment = '../../x'",
    ),
    "a path for a data set": (lambda c: c["runs"][NAME]["data"].update(dataset="../x"), "data.dataset = '../x'"),
    "another identity": (lambda c: c["identity"].update({NAME: "0" * 12}), f"runs.{NAME}: is not the run of that name"),
    "a run without a network": (lambda c: c["runs"][NAME].pop("network"), f"runs.{NAME}.network: missing"),
    "no run": (lambda c: (c["runs"].clear(), c["identity"].clear()), "runs: must not be empty"),
    "a foreign identity": (lambda c: c["identity"].update(x="0" * 12), "identity: must have the names of runs"),
    "a store of the project's": (lambda c: c["execution"].update(store="reports"), "execution.store = 'reports': must"),
    "a store elsewhere": (lambda c: c["execution"].update(store="../../x"), "execution.store = '../../x': must"),
    "no store": (lambda c: c["execution"].update(store=""), "execution.store = '': must"),
    "a negative cost": (
        lambda c: c["runs"][NAME].update(cost={"parameters": -1, "multiply_adds": 1, "training_multiply_adds": 1}),
        f"runs.{NAME}.cost.parameters = -1: must be at least 0",
    ),
    "a cost that no float can hold": (
        lambda c: c["runs"][NAME].update(cost={"parameters": 1, "multiply_adds": 1, "training_multiply_adds": 10**400}),
        f"runs.{NAME}.cost.training_multiply_adds",
    ),
    "a long profile": (lambda c: c.update(profile="x" * 300), "must be a name of lower-case letters"),
    "an unknown key": (lambda c: c.update(future=1), "future: unknown key"),
    "no protocol": (lambda c: c["runs"][NAME]["protocol"].clear(), f"runs.{NAME}.protocol.iterations: missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_old_plan_is_one_line_that_names_the_key(path: Path, damage: str) -> None:
    change, words = DAMAGE[damage]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        Plan.read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and words in message and message.isprintable()
    assert message.endswith("; `python -m pipeline plan` writes it anew")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": NaN}'])
def test_a_plan_that_is_not_json_is_one_line(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=r"plan\.json: .* writes it anew$"):
        Plan.read(path)


def test_a_changed_run_of_a_plan_is_refused_where_it_is_used(path: Path) -> None:
    content = json.loads(path.read_text())
    content["runs"][NAME]["protocol"]["learning_rate"] = 0.2
    with pytest.raises(UserError, match=f"runs.{NAME}: identity = .* does not belong to this configuration"):
        _ = Plan.from_json(content).runs[NAME].spec


@pytest.mark.parametrize("config_file", sorted((ROOT / "published").rglob("config.json")), ids=lambda p: p.parent.name)
def test_the_configuration_of_every_published_run_is_read_as_it_is(config_file: Path) -> None:
    content = json.loads(config_file.read_text())
    assert RunSpec.from_json(content, config_file).to_json() == content


@pytest.mark.parametrize(
    "change", [{"experiment": "../../x"}, {"experiment": "a\nb"}, {"experiment": "/x"}, {"seed": "0"}, {"seed": True}]
)
def test_a_run_with_a_name_that_is_a_path_or_a_seed_that_is_not_a_number_is_refused(change: dict[str, Any]) -> None:
    content = make_spec().to_json() | change
    with pytest.raises(UserError, match=next(iter(change))) as refused:
        RunSpec.from_json(content, "config.json")
    assert str(refused.value).isprintable()


def test_training_needs_no_pydantic() -> None:
    code = "import sys, pipeline.training.loop; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


WITHOUT_PYDANTIC = """
import json, sys
ABSENT = {"ray", "mlflow", "dvc", "hydra", "pydantic", "annotated_types", "yaml", "tenacity", "scipy", "matplotlib"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from pathlib import Path
import pipeline.launch.driver, pipeline.launch.single, pipeline.training.loop
from pipeline.settings.plan import Plan
print(json.dumps(Plan.read(Path(sys.argv[1])).to_json()))
"""


def test_a_machine_that_only_trains_reads_a_plan_without_pydantic(path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_PYDANTIC, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads(path.read_text())
