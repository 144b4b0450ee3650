"""The order of things around a launch, with a training function that only pretends."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import runs, tracking
from pipeline.data.manifest import checksum_of
from pipeline.data.remote import RemoteFolder
from pipeline.launch import placement
from pipeline.launch.driver import Driver
from pipeline.launch.placement import Share
from pipeline.launch.progress import ProgressTable
from pipeline.launch.ray_process import RayLostError
from pipeline.launch.scheduler import Lacking, Summary, check_data, pending, run_all, wait_for_others
from pipeline.launch.single import train_one
from pipeline.runs.execution import STOP_FILE, Execution
from pipeline.runs.reading import CHECKSUMS
from pipeline.runs.records import DETERMINISTIC, MACHINE, Provenance
from pipeline.runs.run_lock import lock_run
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from pipeline.utils.errors import UserError
from pipeline.utils.files import write_json
from tests.plans import make_plan, make_protocol
from tests.unit.tracking.run_folders import write_run

PROTOCOL = make_protocol(iterations=10, batch_size=4, milestones=(5,))
DATA = DataSpec("digits", 0, "c" * 64, None, 16, 1437, 360, tuple("0123456789"))


def spec(name: str) -> RunSpec:
    return RunSpec(name, 0, NetworkSpec("cifar_attention56", 10, {"t": len(name)}), DATA, PROTOCOL)


SPECS = [spec(name) for name in ("a", "bb", "ccc")]


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(make_plan(SPECS, costs=(1, 3, 2)), tmp_path)


def finish(folder: Path, run: RunSpec, weights: bytes | None = None) -> None:
    write_run(folder.parent, run, name=folder.name, weights=weights)


def go(driver: Driver, train: object, slots: int = 2) -> tuple[Summary, str]:
    out, summary = io.StringIO(), Summary()
    with ProgressTable(len(SPECS), Console(file=out, width=200)) as table:
        run_all(driver, SPECS, train, slots, table, summary)  # type: ignore[arg-type]
    return summary, out.getvalue()


def test_the_longest_run_comes_first(driver: Driver) -> None:
    assert [s.name for s in pending(driver)] == ["bb-s0", "ccc-s0", "a-s0"]


def test_finished_and_published_runs_are_not_pending(driver: Driver, tmp_path: Path) -> None:
    for folder in (driver.store / SPECS[0].folder_name, tmp_path / "published" / "digits" / SPECS[1].folder_name):
        folder.mkdir(parents=True)
    finish(driver.store / SPECS[0].folder_name, SPECS[0])
    finish(tmp_path / "published" / "digits" / SPECS[1].folder_name, SPECS[1])
    assert [s.name for s in pending(driver)] == ["ccc-s0"]


def test_a_pattern_that_fits_nothing_is_refused(driver: Driver) -> None:
    with pytest.raises(UserError, match=r"--only 'x\*': fits no run of the plan, which has a-s0, bb-s0, ccc-s0"):
        pending(driver, "x*")


@pytest.mark.parametrize("how", ["raises", "says so", "dies"])
def test_a_run_that_fails_stops_no_other_and_is_named_with_its_log(driver: Driver, how: str) -> None:
    def train(run: RunSpec, execution: Execution) -> str:
        if run.name == "bb-s0":
            (execution.folder / "log.txt").write_text("began\n")
            if how == "raises":
                raise RuntimeError("no such thing")
            if how == "dies":
                Provenance("running", "digits").write(execution.folder)
                return "finished"
            return "failed: no such thing"
        finish(execution.folder, run)
        return "finished"

    summary, text = go(driver, train)
    assert sorted(summary.finished) == ["a-s0", "ccc-s0"]
    reason = "its worker died" if how == "dies" else "no such thing"
    assert reason in summary.failed["bb-s0"]
    assert "log.txt" in summary.failed["bb-s0"]
    assert "bb-s0 failed" in text
    assert runs.status(SPECS[1], driver.store) == "failed"


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("when", ["before it begins", "while it goes"])
@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("provenance.json", "{", "provenance.json: not valid JSON"),
        ("history.csv", "epoch,iteration\n1,many\n", "history.csv: malformed"),
        ("provenance.json", None, "Is a directory"),
    ],
)
def test_a_run_whose_folder_is_damaged_stops_no_other(
    driver: Driver, slots: int, when: str, name: str, content: str | None, complaint: str
) -> None:
    hurt = SPECS[0]

    def damage(folder: Path) -> None:
        for gone in (name, CHECKSUMS):
            (folder / gone).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True) if content is None else (folder / name).write_text(content)

    def train(run: RunSpec, execution: Execution) -> str:
        finish(execution.folder, run)
        if run == hurt:
            damage(execution.folder)
        return "finished"

    if when == "before it begins":
        (driver.store / hurt.folder_name).mkdir(parents=True)
        damage(driver.store / hurt.folder_name)
    summary, text = go(driver, train, slots)
    assert sorted(summary.finished) == ["bb-s0", "ccc-s0"]
    assert list(summary.failed) == ["a-s0"]
    assert complaint in summary.failed["a-s0"]
    assert "\n" not in summary.failed["a-s0"] and "a-s0 failed" in text
    assert not summary.paused


@pytest.fixture
def blind(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another node sees nothing of the data; where it is asked for, and the folder."""
    folder = driver.data / "prepared" / "digits"
    monkeypatch.setattr(
        placement, "nodes_without", lambda place, checksum, each: ["10.0.0.2"] if place == folder.absolute() else []
    )
    return str(folder)


def test_data_that_a_node_lacks_are_refused_before_anything_starts_and_the_way_out_is_named(
    driver: Driver, blind: str
) -> None:
    with pytest.raises(UserError) as refused:
        check_data(driver, SPECS, Share(1, 0.0))
    assert str(refused.value).startswith(f"{blind}: missing on 10.0.0.2, or other data there; with several nodes ")
    assert "`data.remote`" in str(refused.value) and "\n" not in str(refused.value)


def test_data_that_a_node_lacks_are_no_obstacle_where_a_remote_has_them(
    driver: Driver, blind: str, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/datasets"
    driver.plan = replace(driver.plan, remote=url)
    with pytest.raises(UserError, match=rf"data\.remote = '{url}': digits-{'c' * 12}/manifest\.json is missing"):
        check_data(driver, SPECS, Share(1, 0.0))
    files = {"train-00000.bin": "0" * 64}
    specs = [replace(s, data=replace(DATA, checksum=checksum_of(files))) for s in SPECS]
    manifest = {"checksum": checksum_of(files), "files": files, "sizes": {"train-00000.bin": 1}}
    write_json(tmp_path / "datasets" / f"digits-{checksum_of(files)[:12]}" / "manifest.json", manifest)
    remote = RemoteFolder(url, "digits", checksum_of(files))
    assert check_data(driver, specs, Share(1, 0.0)) == [Lacking(Path(blind), ["10.0.0.2"], remote)]


def test_no_more_runs_go_at_once_than_there_are_slots(driver: Driver) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def train(run: RunSpec, execution: Execution) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        finish(execution.folder, run)
        return "finished"

    summary, _ = go(driver, train, slots=2)
    assert len(summary.finished) == 3
    assert most[0] == 2


def test_when_the_time_is_up_nothing_new_begins(driver: Driver) -> None:
    driver = replace(driver, stop_after=0)

    def train(run: RunSpec, execution: Execution) -> str:
        raise AssertionError("began")

    summary, _ = go(driver, train)
    assert summary.paused == [s.name for s in SPECS]


def test_every_run_is_paused_at_the_same_moment(driver: Driver) -> None:
    driver = replace(driver, stop_after=60)
    given = []

    def train(run: RunSpec, execution: Execution) -> str:
        given.append(execution.stop_at)
        finish(execution.folder, run)
        return "finished"

    go(driver, train, slots=1)
    assert len(given) == 3
    assert len(set(given)) == 1
    assert time.time() < given[0] < time.time() + 60


def test_an_interruption_asks_the_runs_to_stop_and_begins_no_other(driver: Driver) -> None:
    began = threading.Event()

    def train(run: RunSpec, execution: Execution) -> str:
        began.set()
        while not (execution.folder / STOP_FILE).exists():
            time.sleep(0.01)
        Provenance("paused", "digits").write(execution.folder)
        return "paused"

    threading.Thread(target=lambda: began.wait() and os.kill(os.getpid(), signal.SIGINT)).start()
    summary, text = go(driver, train, slots=1)
    assert summary.interrupted == signal.SIGINT
    assert sorted(summary.paused) == [s.name for s in SPECS]
    assert not summary.failed
    assert "stopping: every run takes a checkpoint first" in text
    driver.begin(SPECS[0])
    assert not (driver.store / SPECS[0].folder_name / STOP_FILE).exists()


def test_a_run_that_another_process_trains_is_left_to_it(driver: Driver) -> None:
    other = Driver(driver.plan, driver.root)
    execution = other.begin(SPECS[0])
    summary, _ = go(driver, lambda run, execution: finish(execution.folder, run) or "finished")
    assert sorted(summary.finished) == [s.name for s in SPECS[1:]]
    assert f"is being trained by process {os.getpid()} on" in summary.failed[SPECS[0].name]
    other.interrupt(execution)
    summary, _ = go(driver, lambda run, execution: finish(execution.folder, run) or "finished")
    assert SPECS[0].name in summary.finished


def test_waiting_for_another_process_ends_when_it_ends(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    assert not wait_for_others(driver, SPECS)
    other = Driver(driver.plan, driver.root)
    execution = other.begin(SPECS[0])
    threading.Timer(1.5, other.interrupt, (execution,)).start()
    assert wait_for_others(driver, SPECS)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("waiting: ") and f"is being trained by process {os.getpid()} on" in line


def test_when_ray_is_lost_for_good_no_other_run_begins(driver: Driver) -> None:
    def train(run: RunSpec, execution: Execution) -> str:
        raise RayLostError("the raylet of Ray was killed by SIGKILL; the same command continues")

    summary, _ = go(driver, train, slots=1)
    (reason,) = summary.failed.values()
    assert summary.ray_lost and reason.startswith("the raylet of Ray was killed by SIGKILL; the same command continues")
    assert len(summary.paused) == 2


def test_a_run_that_another_process_has_finished_meanwhile_is_not_trained_again(driver: Driver) -> None:
    waiting = pending(driver)
    other = Driver(driver.plan, driver.root)
    execution = other.begin(SPECS[0])
    finish(execution.folder, SPECS[0])
    other.end(execution)
    before = (execution.folder / "provenance.json").read_bytes()
    trained: list[str] = []

    def train(run: RunSpec, execution: Execution) -> str:
        trained.append(run.name)
        finish(execution.folder, run)
        return "finished"

    summary, text = go(driver, train)
    assert SPECS[0] in waiting and SPECS[0].name not in trained
    assert sorted(summary.finished) == [s.name for s in SPECS] and not summary.failed
    assert f"{SPECS[0].name}: another process has finished it meanwhile" in text
    assert (execution.folder / "provenance.json").read_bytes() == before
    assert train_one(driver, SPECS[0], in_process=True) == ("finished", "")
    assert (execution.folder / "provenance.json").read_bytes() == before


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from pipeline.runs.run_lock import lock_run\n"
    code += "held = lock_run(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"is being trained by process {other.pid} on "):
            lock_run(tmp_path)
        other.kill()
        other.wait()
    with lock_run(tmp_path), pytest.raises(UserError, match=f"is being trained by process {os.getpid()} on "):
        lock_run(tmp_path)


def test_a_file_system_without_locks_lets_every_process_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with lock_run(tmp_path), lock_run(tmp_path):
        pass


def test_a_mistake_in_mlflow_stops_no_run(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off(*arguments: object, **options: object) -> None:
        raise LookupError("no credentials")

    monkeypatch.setattr(tracking, "close_run", break_off)
    driver.uri = "sqlite:///nowhere.db"
    summary, _ = go(driver, lambda run, execution: finish(execution.folder, run) or "finished")
    assert sorted(summary.finished) == [s.name for s in SPECS]
    assert "MLflow has not all of it (no credentials); `track --sync` completes it" in caplog.text


def test_publishing_leaves_weights_and_host_names_behind(driver: Driver, tmp_path: Path) -> None:
    folder = driver.store / SPECS[0].folder_name
    folder.mkdir(parents=True)
    finish(folder, SPECS[0], b"weights")
    target = runs.publish(SPECS[0], "digits", driver.store, tmp_path / "published")
    assert {path.name for path in target.iterdir()} == {*DETERMINISTIC, *MACHINE, CHECKSUMS}


def test_importing_refuses_a_run_whose_identity_does_not_fit(driver: Driver, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "run"
    elsewhere.mkdir(parents=True)
    write_json(elsewhere / "config.json", {**SPECS[0].to_json(), "seed": 3})
    with pytest.raises(UserError, match="does not belong to this configuration"):
        runs.import_runs(tmp_path / "elsewhere", driver.store)
    write_json(elsewhere / "config.json", SPECS[0].to_json())
    assert runs.import_runs(tmp_path / "elsewhere", driver.store) == [SPECS[0].folder_name]
    assert runs.import_runs(tmp_path / "elsewhere", driver.store) == [SPECS[0].folder_name]  # still unfinished
    with pytest.raises(UserError, match="holds no run"):
        runs.import_runs(tmp_path / "nothing", driver.store)


def test_of_several_copies_of_a_run_that_with_most_of_it_is_imported(driver: Driver, tmp_path: Path) -> None:
    checkout, name = tmp_path / "checkout", SPECS[0].folder_name
    for place in (f"runs/.{name}.host-99-abcd.tmp", "results/digits/a/seed0", f"runs/{name}"):
        (checkout / place).mkdir(parents=True)
        finish(checkout / place, SPECS[0], b"many" if place == f"runs/{name}" else None)
    (checkout / "results/digits/a/seed0/provenance.json").unlink()
    assert runs.import_runs(checkout, driver.store) == [name]
    assert {"weights.safetensors", "provenance.json"} <= {path.name for path in (driver.store / name).iterdir()}


def test_importing_brings_all_or_nothing_and_never_sets_a_run_back(driver: Driver, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for number, run in enumerate(SPECS[:2]):
        (elsewhere / str(number) / "checkpoints" / "000000010").mkdir(parents=True)
        write_json(elsewhere / str(number) / "config.json", run.to_json())
    further = driver.store / SPECS[0].folder_name / "checkpoints" / "000000020"
    further.mkdir(parents=True)
    assert runs.import_runs(elsewhere, driver.store) == [SPECS[1].folder_name]
    assert further.exists()

    finish(elsewhere / "0", SPECS[0], b"weights")
    (elsewhere / "0" / "weights.safetensors").write_text("of another run")
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged"):
        runs.import_runs(elsewhere, driver.store)
    (elsewhere / "0" / "weights.safetensors").unlink()
    assert runs.import_runs(elsewhere, driver.store) == [SPECS[0].folder_name, SPECS[1].folder_name]
    assert runs.finished(driver.store / SPECS[0].folder_name, SPECS[0].identity)


def test_a_run_of_another_identity_under_the_same_name_is_not_taken_for_finished(driver: Driver) -> None:
    folder = driver.store / SPECS[0].folder_name
    folder.mkdir(parents=True)
    finish(folder, replace(SPECS[0], seed=9))
    assert runs.locate(SPECS[0], driver.store) is None
