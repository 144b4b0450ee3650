"""What the provenance of runs adds to the report: tracked for published runs, on this machine alone for all others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import build_report
from pipeline.report.evidence import MOVED
from pipeline.report.trace import DIRTY, marks_here, trace, training_code_changed
from pipeline.runs.records import Provenance, Segment
from pipeline.settings.plan import Plan
from tests.unit.report.test_build import build

NAME = "attention92-s0"
CELL = "table3/attention92/arl"


@pytest.fixture
def plan(world: Any) -> dict[str, Any]:
    made: dict[str, Any] = world.plan(experiments={"attention92": 5.0})
    return made


def publish(world: Any, plan: Plan) -> Path:
    """The run as `runs publish` leaves it, and no copy in the store."""
    stored = world.stored(plan.runs[NAME].config)
    folder = world.published / "digits" / stored.name
    folder.parent.mkdir(parents=True)
    return Path(stored.rename(folder))


def move(folder: Path, **other: Any) -> None:
    """Give a run a second segment with other values."""
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["segments"].append(provenance["segments"][0] | other)
    (folder / "provenance.json").write_text(json.dumps(provenance))


def tracked(world: Any) -> str:
    return str((world.root / "reports/digits/report.html").read_text())


def of_machine(world: Any) -> str:
    return str((world.root / "reports/local/digits/report.html").read_text())


def test_the_tracked_page_walks_a_published_number_back_to_commit_command_hardware_and_time(
    world: Any, plan: Plan
) -> None:
    folder = publish(world, plan)
    build(world, plan)
    text = tracked(world)
    for part in (
        f"published/digits/{folder.name}", "f" * 40, "a" * 32, "python -m pipeline launch", "Synthetic CPU",
        "2026-01-01T00:00:00Z, 12.5 s", "torch 2.11",
    ):  # fmt: skip
        assert part in text, part
    for part in (str(world.root), "127.0.0.1", "where the runs were made:", "since commit"):
        assert part not in text, part


def test_the_tracked_page_of_a_published_run_does_not_depend_on_a_copy_in_the_store(
    world: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(world, plan)
    build(world, plan)
    before = tracked(world)
    move(world.stored(plan.runs[NAME].config), device="cpu: of the store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    sources = [world.store, world.published, world.results]
    local = world.root / "reports/local/digits"
    assert build_report(plan, sources, world.root / "reports/digits", local, None).changed == ()
    assert tracked(world) == before
    assert MOVED in (local / "traces.html").read_text()


@pytest.mark.parametrize("other", [{"device": "cuda: H100"}, {"threads": 2, "device": "cpu"}, {"versions": {"a": "1"}}])
def test_a_published_run_that_was_moved_is_marked_in_every_form(world: Any, plan: Plan, other: dict[str, Any]) -> None:
    move(publish(world, plan), **other)
    build(world, plan)
    report = world.root / "reports/digits"
    assert f'<abbr title="{MOVED}">¶</abbr>' in tracked(world)
    assert MOVED in (report / "tables/table3.csv").read_text()
    assert r"\P{}" in (report / "tables/table3.tex").read_text()
    assert trace(plan, world.sources, CELL).count(MOVED) == 1


def test_a_moved_run_of_the_store_is_marked_on_this_machine_alone(world: Any, plan: Plan) -> None:
    move(world.stored(plan.runs[NAME].config), device="cuda: H100")
    build(world, plan)
    assert '<abbr title="moved' not in tracked(world)
    assert f"<small>{MOVED}</small>" in of_machine(world)
    assert MOVED in trace(plan, world.sources, CELL)


def test_a_second_segment_on_the_same_machine_is_no_move(world: Any, plan: Plan) -> None:
    move(publish(world, plan), from_iteration=90, hostname="another node of the kind")
    assert MOVED not in trace(plan, world.sources, CELL)


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def made_by(commit: str | None) -> Provenance:
    """The provenance of a run that this commit of the code made."""
    moment = "2026-01-01T00:00:00Z"
    return Provenance(
        "finished", "digits", (Segment(0, 90, moment, 1.0, 90.0, "h", "cpu", 1, 1, {}, commit, False, ""),)
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with training code, a network and a page."""
    root = tmp_path / "checkout"
    for name in ("pipeline/training/loop.py", "models/resnet.py", "reports/report.md"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


@pytest.mark.parametrize(
    ("changed", "committed", "marked"),
    [
        ("pipeline/training/loop.py", True, True),
        ("models/resnet.py", False, True),
        ("reports/report.md", True, False),
    ],
)
def test_a_run_by_other_training_code_is_marked(checkout: Path, changed: str, committed: bool, marked: bool) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / changed).write_text("2\n")
    if committed:
        git(checkout, "commit", "-q", "-a", "-m", "second")
    marks = marks_here(made_by(commit), checkout)
    assert marks == ([f"training code has changed since commit {commit[:10]}"] if marked else [])


def test_a_commit_that_git_does_not_know_is_said_to_be_unknown(checkout: Path, tmp_path: Path) -> None:
    for root in (checkout, tmp_path):
        [mark] = marks_here(made_by("f" * 40), root)
        assert mark.startswith("unknown whether training code has changed since commit ffffffffff")
    assert marks_here(made_by(None), checkout) == []
    assert training_code_changed("--output=stolen", checkout) is None


def test_a_run_from_a_working_tree_with_changes_is_marked(world: Any, plan: Plan) -> None:
    move(world.stored(plan.runs[NAME].config), dirty=True)
    build(world, plan)
    assert DIRTY in of_machine(world) and DIRTY not in tracked(world)
    assert DIRTY in trace(plan, world.sources, CELL)
