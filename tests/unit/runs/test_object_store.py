"""A run store behind a URL, on moto's S3 server: what is complete there, and what a killed upload leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from pipeline import runs
from pipeline.cli import main
from pipeline.launch import doctor
from pipeline.launch.driver import Driver
from pipeline.runs import run_store
from pipeline.runs.execution import STOP_FILE
from pipeline.runs.records import DETERMINISTIC, Provenance
from pipeline.runs.run_store import Mirror, RunStore, working_copy
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from pipeline.settings import config
from pipeline.utils import object_store
from pipeline.utils.errors import UserError
from pipeline.utils.files import write_json
from tests.plans import make_plan, make_protocol
from tests.s3_server import BUCKET, CREDENTIALS, S3Server, s3_server
from tests.unit.tracking.run_folders import make_spec, write_run

RUN = "attention56-s0-0123456789ab"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with s3_server() as running:
            yield running


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> RunStore:
    return RunStore(server.url(tmp_path.name))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PUSH_SECONDS", "PULL_SECONDS"):
        monkeypatch.setattr(run_store, name, 0.05)
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.05)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json").replace("_csv", ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def checkpoint(folder: Path, iteration: int) -> None:
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        path = folder / "checkpoints" / f"{iteration:09d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{iteration}")


def folders_of(store: RunStore) -> set[str]:
    """Return the folders of the run, including empty ones."""
    found = store.filesystem.get_file_info(fs.FileSelector(RUN, recursive=True))
    return {info.path.removeprefix(f"{RUN}/") for info in found if info.type == fs.FileType.Directory}


def test_what_changes_in_a_working_copy_reaches_the_store_and_the_next_copy(store: RunStore) -> None:
    with working_copy(store.url, RUN) as folder:
        assert list(folder.iterdir()) == []
        write(folder, history_csv="one", progress_json="{}")
        (folder / ".half.tmp").write_text("being written")
        checkpoint(folder, 10)
        until(lambda: len(store.files(RUN)) == 5)
        checkpoint(folder, 20)
        (folder / "progress.json").unlink()
        for path in (folder / "checkpoints" / "000000010").iterdir():
            path.unlink()
        write(folder, history_csv="one\ntwo")
    assert "checkpoints/000000010" not in folders_of(store)
    names = {"history.csv", *(f"checkpoints/000000020/{n}" for n in ("model.safetensors", "optimizer.safetensors"))}
    assert set(store.files(RUN)) == names | {"checkpoints/000000020/state.json"}
    assert not folder.exists()
    with working_copy(store.url, RUN) as again:
        assert (again / "history.csv").read_text() == "one\ntwo"
        assert (again / "checkpoints" / "000000020" / "state.json").read_text() == "20"


def test_what_makes_a_folder_complete_is_copied_last_in_both_directions(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    checkpoint(here, 10)
    write(here, metrics_json="{}", provenance_json="{}", zeta_csv="")
    written, read = [], []
    put, get = RunStore.write, RunStore.read
    monkeypatch.setattr(RunStore, "write", lambda self, path, data: (written.append(path), put(self, path, data)))
    monkeypatch.setattr(RunStore, "read", lambda self, path: (read.append(path), get(self, path))[1])
    store.push(RUN, here, {})
    store.pull(RUN, tmp_path / "there", {}, lambda name: True)
    assert written == read
    assert [path.rpartition("/")[2] for path in written[-2:]] == ["state.json", "metrics.json"]


def test_a_checkpoint_that_was_not_uploaded_completely_is_neither_downloaded_nor_kept(
    store: RunStore, tmp_path: Path
) -> None:
    checkpoint(tmp_path / "here", 10)
    checkpoint(tmp_path / "here", 20)
    (tmp_path / "here" / "checkpoints" / "000000020" / "state.json").unlink()  # killed before it came to that
    store.push(RUN, tmp_path / "here", {})
    with working_copy(store.url, RUN) as folder:
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000000010"]
    assert {name.split("/")[1] for name in store.files(RUN)} == {"000000010"}


def test_several_workers_of_a_run_push_only_what_is_their_own(store: RunStore, tmp_path: Path) -> None:
    checkpoint(tmp_path / "here", 10)
    store.push(RUN, tmp_path / "here", {})
    with working_copy(store.url, RUN) as first, working_copy(store.url, RUN) as second:
        checkpoint(first, 20)
        for path in (first / "checkpoints" / "000000010").iterdir():
            path.unlink()
        write(second, system_csv="1")
        until(lambda: "system.csv" in store.files(RUN))
        until(lambda: "checkpoints/000000010/state.json" not in store.files(RUN))
    assert {name.split("/")[1] for name in store.files(RUN) if "/" in name} == {"000000020"}


def test_the_driver_sees_a_run_grow_without_its_checkpoints_and_can_stop_it(store: RunStore, tmp_path: Path) -> None:
    mirror = Mirror(store, tmp_path / "mirror")
    copy = mirror.folder / RUN
    copy.mkdir(parents=True)
    mirror.follow(RUN)
    with working_copy(store.url, RUN) as folder:
        checkpoint(folder, 10)
        write(folder, progress_json="{}")
        (folder / "weights.safetensors").write_text("many")
        until((copy / "progress.json").exists)
        (copy / STOP_FILE).touch()
        until((folder / STOP_FILE).exists)
        (folder / "progress.json").unlink()
        write(folder, provenance_json='"paused"')
    mirror.finish(RUN)
    assert sorted(path.name for path in copy.iterdir()) == ["provenance.json", STOP_FILE, "weights.safetensors"]
    assert store.exists(f"{RUN}/{STOP_FILE}")
    mirror.follow(RUN)  # the next launch takes the request back
    assert not store.exists(f"{RUN}/{STOP_FILE}")
    mirror.finish(RUN)


def test_another_machine_finds_what_is_finished_without_its_weights_unless_it_wants_them(
    store: RunStore, tmp_path: Path
) -> None:
    write(tmp_path / "here", metrics_json="{}", config_json="{}")
    (tmp_path / "here" / "weights.safetensors").write_text("many")
    checkpoint(tmp_path / "here", 10)
    store.push(RUN, tmp_path / "here", {})
    mirror = Mirror(store, tmp_path / "mirror")
    mirror.fetch()
    assert sorted(path.name for path in (mirror.folder / RUN).iterdir()) == ["config.json", "metrics.json"]
    mirror.fetch(lambda name: not name.startswith("checkpoints"))
    assert (mirror.folder / RUN / "weights.safetensors").read_text() == "many"


def test_a_store_that_is_away_for_a_while_loses_nothing(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, away = RunStore.write, [True]

    def write_or_fail(self: RunStore, path: str, content: bytes) -> None:
        if away[0]:
            raise OSError("no route to host")
        put(self, path, content)

    monkeypatch.setattr(RunStore, "write", write_or_fail)
    with working_copy(store.url, RUN) as folder:
        write(folder, history_csv="one")
        until(lambda: len(caplog.records) == 1)
        away[0] = False
        until(lambda: "history.csv" in store.files(RUN))
    assert "the run store does not answer, trying again: no route to host" in caplog.text
    away[0] = True
    with pytest.raises(OSError, match="no route"), working_copy(store.url, RUN) as folder:
        write(folder, history_csv="one\ntwo")


def test_a_store_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"store = 'nosuch://bucket/runs': .*nosuch"):
        Mirror(RunStore("nosuch://bucket/runs"), tmp_path).fetch()


def test_the_doctor_sees_whether_a_store_can_be_used(server: S3Server, tmp_path: Path) -> None:
    settings = config.load()
    good = doctor.object_store(settings.model_copy(update={"store": server.url("runs")}))
    assert good.fine and "answers" in good.found
    gone = settings.model_copy(update={"store": server.url("runs").replace(BUCKET, "nosuch")})
    found = doctor._guarded("store", "make it", lambda: doctor.object_store(gone))
    assert not found.fine and "bucket" in found.found.lower()
    assert not any("doctor" in name for name in server.names())


def test_fsspec_opens_what_pyarrow_does_not_know(tmp_path: Path) -> None:
    store = RunStore("memory://laboratory/runs")
    write(tmp_path / "here", metrics_json="{}")
    store.push(RUN, tmp_path / "here", {})
    store.pull(RUN, tmp_path / "there", {}, lambda name: True)
    assert (tmp_path / "there" / "metrics.json").read_text() == "{}"
    store.delete(f"{RUN}/metrics.json")
    assert store.files("") == {}


def paused(folder: Path, iteration: int) -> RunSpec:
    """Leave a run that has come to an iteration."""
    protocol = make_protocol(iterations=100, batch_size=4, milestones=(50,))
    data = DataSpec("digits", 0, "c" * 64, None, 16, 1437, 360, tuple("0123456789"))
    spec = RunSpec("attention56", 0, NetworkSpec("cifar_attention56", 10, {}), data, protocol)
    write_json(folder / "config.json", spec.to_json())
    write(folder, history_csv=f"up to {iteration}")
    checkpoint(folder, iteration)
    return spec


def test_an_import_never_sets_a_run_back_that_has_come_further_in_the_store(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    make_plan([make_spec()], store=store.url).write(project / "plan.json")
    monkeypatch.chdir(project)
    elsewhere = tmp_path / "elsewhere"
    spec = paused(elsewhere / "run", 20)
    assert main(["runs", "import", str(elsewhere)]) == 0
    assert store.newest_checkpoint(spec.folder_name) == 20

    paused(tmp_path / "worker", 40)  # another machine goes on with it
    store.push(spec.folder_name, tmp_path / "worker", {})
    write(tmp_path / "torn", checkpoints__000000060__model_safetensors="half")  # and is killed while it pushes
    store.push(spec.folder_name, tmp_path / "torn", {})
    before = {name: store.read(f"{spec.folder_name}/{name}") for name in store.files(spec.folder_name)}
    assert store.newest_checkpoint(spec.folder_name) == 40
    capsys.readouterr()
    assert main(["runs", "import", str(elsewhere)]) == 0
    assert capsys.readouterr().out == "nothing new\n"
    assert {name: store.read(f"{spec.folder_name}/{name}") for name in store.files(spec.folder_name)} == before

    paused(elsewhere / "run", 50)
    assert main(["runs", "import", str(elsewhere)]) == 0
    assert store.newest_checkpoint(spec.folder_name) == 50
    assert store.read(f"{spec.folder_name}/history.csv") == b"up to 50"


def test_an_import_that_broke_off_is_completed_by_the_next(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plan([make_spec()], store=store.url).write(tmp_path / "plan.json")
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    spec = make_spec()
    write_run(elsewhere, spec)
    put = RunStore.write

    def write_or_fail(self: RunStore, path: str, content: bytes) -> None:
        if path.endswith("metrics.json"):
            raise OSError("no route to host")
        put(self, path, content)

    with monkeypatch.context() as broken:
        broken.setattr(RunStore, "write", write_or_fail)
        assert main(["runs", "import", str(elsewhere)]) == 2
    assert not store.exists(f"{spec.folder_name}/metrics.json")
    assert main(["runs", "import", str(elsewhere)]) == 0
    assert store.exists(f"{spec.folder_name}/metrics.json")
    assert runs.import_runs(elsewhere, tmp_path / "copies", store) == [spec.folder_name]


def test_a_store_that_does_not_say_how_a_run_ended_is_not_told_that_it_failed(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(make_plan(store=store.url), tmp_path)
    run = driver.begin(paused(tmp_path / "worker", 20))
    Provenance("running", "digits").write(run.folder)
    Provenance("finished", "digits").write(tmp_path / "worker")
    store.push(run.folder.name, tmp_path / "worker", {})

    def away(*arguments: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as broken:
        broken.setattr(RunStore, "pull", away)
        with pytest.raises(UserError, match="does not say how the run ended; the same command looks again"):
            driver.end(run)
    assert b'"finished"' in store.read(f"{run.folder.name}/provenance.json")


def test_a_run_that_another_machine_has_finished_meanwhile_is_not_trained_again(
    store: RunStore, tmp_path: Path
) -> None:
    driver = Driver(make_plan(store=store.url), tmp_path / "here")
    spec = paused(tmp_path / "there", 20)
    driver.fetch()
    for name in DETERMINISTIC:
        if name != "config.json":
            write_json(tmp_path / "there" / name, {})
    store.push(spec.folder_name, tmp_path / "there", {})
    assert not driver.claim(spec)
    assert runs.locate(spec, driver.store) == driver.store / spec.folder_name


def test_copies_of_a_store_have_a_folder_of_their_own(tmp_path: Path) -> None:
    first, second = (runs.store_folder(f"s3://{bucket}/runs", tmp_path) for bucket in ("one", "two"))
    assert first.parent == second.parent == tmp_path / "runs"
    assert first != second
    assert runs.store_folder("runs", tmp_path) == tmp_path / "runs"
    assert runs.store_folder("/shared/runs", tmp_path) == Path("/shared/runs")
