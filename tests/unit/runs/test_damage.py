"""Every kind of file of a finished run with every kind of damage: no wrong number, and one line that names the file."""

from __future__ import annotations

import builtins
import csv
import importlib
import io
import random
import re
import shutil
from collections.abc import Callable
from os.path import lexists
from pathlib import Path
from typing import Any

import pytest

from models import create_model
from models.weights import load_model, save_weights
from pipeline import runs
from pipeline.cli import main
from pipeline.report.records import scan
from pipeline.runs.finished import read_finished
from pipeline.runs.reading import CHECKSUMS
from pipeline.runs.records import DETERMINISTIC, MACHINE, METRICS, PROVENANCE, WEIGHTS
from pipeline.utils.errors import UserError
from tests.plans import make_plan
from tests.unit.tracking.run_folders import make_spec, write_run

sync = importlib.import_module("pipeline.tracking.sync")  # not the function of that name
FILES = (*DETERMINISTIC, *MACHINE, WEIGHTS, CHECKSUMS)
SPEC, ERROR = make_spec(), 1.5
FLIPS = 40  # of each file


def flip(path: Path, seed: int = 0) -> None:
    content, draw = bytearray(path.read_bytes()), random.Random(f"{path.name} {seed}")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def lock(path: Path) -> None:
    """Left to the fixture `locked`: the tests may run as root, who may read everything."""


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped byte": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]) and None,
    "emptied": lambda path: path.write_bytes(b"") and None,
    "directory": become_directory,
    "link loop": become_loop,
    "unreadable": lock,
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs", SPEC, error=ERROR)
    return tmp_path / "runs"


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """One kind of damage to a file."""
    if request.param != "unreadable":
        return DAMAGE[request.param]

    def make_unreadable(path: Path) -> None:
        real = io.open

        def refuse(file: Any, *arguments: Any, **options: Any) -> Any:
            if str(file) == str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(file, *arguments, **options)

        monkeypatch.setattr(io, "open", refuse)
        monkeypatch.setattr(builtins, "open", refuse)

    return make_unreadable


def refused(name: str, action: Callable[[], object]) -> None:
    with pytest.raises(UserError) as found:
        action()
    assert name in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize("name", [name for name in FILES if name != CHECKSUMS])
def test_a_damaged_file_is_named_and_nothing_is_made_of_the_run(
    store: Path, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    target, published = tmp_path / "results" / "seed0", tmp_path / "published"
    runs.collect(store / SPEC.folder_name, target)
    kept = {path: path.read_bytes() for path in target.iterdir()}
    folder = store / SPEC.folder_name
    damage(folder / name)
    if name == WEIGHTS and not lexists(folder / name):
        assert read_finished(folder).metrics.test_error == ERROR  # copies of runs are without weights
        return
    refused(name, lambda: read_finished(folder))
    refused(name, lambda: runs.collect(folder, target))
    assert {path: path.read_bytes() for path in target.iterdir()} == kept
    if runs.finished(folder, SPEC.identity):
        refused(name, lambda: runs.publish(SPEC, "digits", store, published))
    assert not published.exists()
    if (folder / METRICS).is_file():
        refused(name, lambda: runs.import_runs(folder, tmp_path / "elsewhere"))
        assert not (tmp_path / "elsewhere").exists()
    [row] = [row for _, row in runs.as_frame("runs", tmp_path).iterrows()] or [None]
    if name == METRICS and row is not None and row["status"] != "damaged":
        assert row["status"] != "finished"  # without its metrics a run is one that was not finished
    elif row is not None:
        assert row["status"] == "damaged" and name in row["problem"]
    found = scan([store])
    for run in found.runs.values():
        assert run.metrics.test_error == ERROR and run.relative_responses in (None, (1.0, 0.5, 0.25))
    small = name not in (
        "masks.npz",
        "mistakes.npz",
        "timing.csv",
        WEIGHTS,
    )  # the report reads those where it shows them
    if small and name != PROVENANCE:
        assert any(name in problem.reason for problem in found.problems)


def test_damaged_checksums_are_named_or_the_run_counts_as_unverified(
    store: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = store / SPEC.folder_name
    damage(folder / CHECKSUMS)
    try:
        run = read_finished(folder)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert not run.verified and run.metrics.test_error == ERROR


def test_no_flipped_bit_passes_for_a_finished_run(store: Path) -> None:
    folder, passed = store / SPEC.folder_name, []
    for name in (*DETERMINISTIC, *MACHINE, WEIGHTS):
        good = (folder / name).read_bytes()
        for seed in range(FLIPS):
            flip(folder / name, seed)
            try:
                read_finished(folder)
                passed.append((name, seed))
            except UserError:
                pass
            (folder / name).write_bytes(good)
    assert passed == []


def test_without_checksums_damage_is_a_line_or_the_run_says_that_it_is_unverified(store: Path, tmp_path: Path) -> None:
    folder = store / SPEC.folder_name
    (folder / CHECKSUMS).unlink()
    for name in (*DETERMINISTIC, *MACHINE, WEIGHTS):
        good = (folder / name).read_bytes()
        for seed in range(FLIPS):
            flip(folder / name, seed)
            try:
                assert not read_finished(folder).verified
            except UserError as error:
                assert "\n" not in str(error)
            for run in scan([store]).runs.values():
                assert run.metrics.best_test_error <= run.metrics.test_error
            assert len(runs.as_frame("runs", tmp_path)) <= 1
            (folder / name).write_bytes(good)


@pytest.mark.parametrize("record", [CHECKSUMS, METRICS])
def test_a_flipped_byte_of_weights_is_refused_by_whatever_loads_them(tmp_path: Path, record: str) -> None:
    path = tmp_path / WEIGHTS
    save_weights(create_model("cifar_attention56", 10), path, name="cifar_attention56", num_classes=10)
    folder = write_run(tmp_path / "runs", SPEC, weights=path.read_bytes())
    for other in {CHECKSUMS, METRICS} - {record}:
        (folder / other).unlink()
    load_model(folder / WEIGHTS)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{WEIGHTS}: damaged: its SHA-256"):
        load_model(folder / WEIGHTS)
    (folder / record).write_bytes(b"{")
    with pytest.raises(ValueError, match=f"{record}: damaged"):
        load_model(folder / WEIGHTS)


@pytest.mark.parametrize("name", [name for name in FILES if name != CHECKSUMS])
def test_of_a_damaged_run_nothing_is_logged(
    store: Path, damage: Callable[[Path], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, logged = store / SPEC.folder_name, []
    monkeypatch.setattr(sync, "initialise", lambda uri: True)
    monkeypatch.setattr(sync, "_sync_run", lambda uri, run: logged.append(run.name) or (True, 0))
    damage(folder / name)
    done = sync.sync("sqlite:///", [folder])
    # Without its metrics a run is one that was not finished: what is left of it is logged as that of a broken-off run.
    # Copies without weights are whole: published runs have none.
    tolerated = name in (METRICS, PROVENANCE) or (name == WEIGHTS and not (folder / name).exists())
    assert (done.failed == (folder.name,) and not logged) or (tolerated and not done.failed)


QUICK = (
    ["runs", "list"],
    ["runs", "list", "--json"],
    ["runs", "list", "--csv", "runs.csv"],
    ["runs", "publish", "*"],
    ["launch", "--dry-run"],
    ["train", SPEC.experiment],
    ["trace", "table3/attention56/arl"],
)


@pytest.fixture
def project(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose plan has the one finished run."""
    make_plan([SPEC], parameters=[1030362]).write(store.parent / "plan.json")
    monkeypatch.chdir(store.parent)
    monkeypatch.setenv("DVC_STAGE", "launch")  # so that the plan is taken as it is
    return store.parent


def answers(command: list[str], capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A command ends with a status; of the run it prints the right error, or names the damaged file."""
    status = main(command)
    printed = capsys.readouterr()
    assert status in (0, 1, 2) and "Traceback" not in printed.err
    if status == 2:
        assert name in printed.err or "fits no finished run" in printed.err
        assert printed.err.count("\n") == 1
    for error in re.findall(r"([\d.]+) % test error|test error +([\d.]+)", printed.out):
        assert "".join(error) == f"{ERROR:.2f}"


@pytest.mark.parametrize("name", FILES)
def test_every_command_names_the_file_or_has_the_right_number(
    project: Path, damage: Callable[[Path], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "runs" / SPEC.folder_name
    damage(folder / name)
    for command in QUICK:
        if command[0] != "train" or runs.finished(folder, SPEC.identity):  # else it would be trained again
            answers(command, capsys, name)


@pytest.mark.parametrize(("name", "cell"), [("=1+1|x\x1b\n", "'=1+1|x\\x1b\\n"), ("-2+3", "'-2+3")])
def test_the_name_of_a_folder_is_no_formula_in_the_table_of_runs(project: Path, name: str, cell: str) -> None:
    shutil.copytree(project / "runs" / SPEC.folder_name, project / "runs" / name)
    assert main(["runs", "list", "--csv", "runs.csv"]) == 0
    with (project / "runs.csv").open(newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {SPEC.folder_name, cell}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_report_names_the_file_or_has_the_right_number(
    project: Path, damage: Callable[[Path], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(Path(__file__).parents[3] / "conf", project / "conf")
    damage(project / "runs" / SPEC.folder_name / name)
    answers(["report"], capsys, name)
    for line in (project / "reports/digits/runs.csv").read_text().splitlines()[1:]:
        assert f",{ERROR}," in line
