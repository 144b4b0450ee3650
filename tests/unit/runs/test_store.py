"""Names and folders that come from files: a run is imported below the store, and nothing else is replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import runs
from pipeline.runs.reading import CHECKSUMS, DamagedError, read_checksums
from pipeline.runs.records import CONFIG, DETERMINISTIC, MACHINE, METRICS, MISTAKES, TIMING, WEIGHTS, Provenance
from pipeline.utils.errors import UserError
from tests.unit.tracking.run_folders import make_spec, write_run

BAD_NAMES = [
    *("../../x", "/etc/x", "a/b", "a\\b", "..", ".", "", "a\nb", "<script>", "a\0b", "\x1b[2J", "x" * 121),
    *("=1+1|x", ".hidden", "Aa", "`x`"),
    *(5, None, True, ["x"]),
]
BAD_SEEDS = ["0", "../0", True, None, 0.0, -1, 2**64]


def foreign(folder: Path, **changes: Any) -> Path:
    """A paused run from elsewhere whose configuration says something else; the identity knows nothing of names."""
    run = write_run(folder, make_spec(), 2, "paused")
    content = json.loads((run / CONFIG).read_text())
    (run / CONFIG).write_text(json.dumps(content | changes))
    return run


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_an_experiment_that_is_no_name_is_refused_and_nothing_is_written(tmp_path: Path, name: Any) -> None:
    precious = tmp_path / "x-s0-identity"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    foreign(tmp_path / "elsewhere", experiment=name)
    with pytest.raises(UserError) as refused:
        runs.import_runs(tmp_path / "elsewhere", tmp_path / "a" / "runs")
    assert "experiment" in str(refused.value) and len(str(refused.value).splitlines()) == 1
    assert [path for path in sorted(tmp_path.rglob("*")) if "elsewhere" not in path.parts] == before


@pytest.mark.parametrize("seed", BAD_SEEDS, ids=repr)
def test_a_seed_that_is_no_integer_is_refused(tmp_path: Path, seed: Any) -> None:
    foreign(tmp_path / "elsewhere", seed=seed)
    with pytest.raises(UserError, match="seed"):
        runs.import_runs(tmp_path / "elsewhere", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("profile", ["../../x", "<script>", "a\nb", "", 3])
def test_a_profile_that_is_no_name_is_refused(tmp_path: Path, profile: Any) -> None:
    folder = write_run(tmp_path, make_spec(), 2, "paused")
    content = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(content | {"profile": profile}))
    with pytest.raises(DamagedError, match="profile"):
        Provenance.read(folder)
    with pytest.raises(UserError, match="profile"):
        runs.result_folder(make_spec(), profile)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", ".."])
def test_checksums_of_files_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / CHECKSUMS).write_text(json.dumps({"files": {name: "0" * 64}}))
    with pytest.raises(UserError, match=CHECKSUMS):
        read_checksums(tmp_path)


@pytest.mark.parametrize("there", ["file", "link", "another's folder", "another run"])
def test_an_import_replaces_nothing_but_a_folder_of_the_run(tmp_path: Path, there: str) -> None:
    spec, store = make_spec(), tmp_path / "runs"
    write_run(tmp_path / "elsewhere", spec)
    target, precious = store / spec.folder_name, tmp_path / "precious"
    precious.mkdir()
    store.mkdir()
    if there == "file":
        target.write_text("mine")
    elif there == "link":
        target.symlink_to(precious)
    elif there == "another's folder":
        target.mkdir()
        (target / "thesis.tex").write_text("mine")
    else:
        write_run(store, make_spec(seed=3)).rename(target)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="is not replaced"):
        runs.import_runs(tmp_path / "elsewhere", store)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_one_bad_run_among_several_stops_the_import_of_all(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", make_spec())
    bad = write_run(tmp_path / "elsewhere", make_spec("resnet164"))
    (bad / "responses.json").write_text("{}")
    with pytest.raises(UserError, match=r"responses\.json"):
        runs.import_runs(tmp_path / "elsewhere", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("log.txt", lambda path: path.symlink_to("/etc/passwd")),  # out of the folder
        ("a", lambda path: path.symlink_to(".")),  # without end
        ("log.txt", os.mkfifo),
        (CONFIG, os.mkfifo),
        (TIMING, os.mkfifo),
        (METRICS, lambda path: path.symlink_to("/dev/zero")),
    ],
)
def test_links_pipes_and_devices_are_not_imported(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    run = write_run(tmp_path / "elsewhere", make_spec())
    (run / CHECKSUMS).unlink()
    (run / name).unlink(missing_ok=True)
    make(run / name)
    with pytest.raises(UserError, match=rf"/{name}: (a link|not a regular file)"):
        runs.import_runs(tmp_path / "elsewhere", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("status", ["failed", "paused", "running"])
def test_a_run_that_does_not_say_that_it_is_finished_is_not_used(tmp_path: Path, status: Any) -> None:
    run = write_run(tmp_path / "runs", make_spec())
    provenance = Provenance.read(run)
    assert provenance is not None
    provenance.ended(status, "why").write(run)
    for action in (
        lambda: runs.collect(run, tmp_path / "seed0"),
        lambda: runs.publish(make_spec(), "digits", tmp_path / "runs", tmp_path / "published"),
        lambda: runs.import_runs(run, tmp_path / "elsewhere"),
    ):
        with pytest.raises(UserError, match=rf"provenance\.json: unfinished: {status} at iteration 60 \(why\)"):
            action()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("mine", ["seed0/mine", "seed0/.mine/x", "seed0/config.json", "linked"])
def test_collecting_keeps_what_is_not_a_runs(tmp_path: Path, mine: str) -> None:
    run = write_run(tmp_path / "runs", make_spec())
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "results" / "attention56" / "seed0"
    target.parent.parent.mkdir()
    if mine == "linked":
        runs.collect(run, elsewhere / "seed0")
        target.parent.symlink_to(elsewhere)
    else:
        (target.parent / mine).parent.mkdir(parents=True)
        (target.parent / mine).write_text("{}")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="is not replaced"):
        runs.collect(run, target)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_nothing_is_published_through_a_link(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", make_spec())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "digits").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="published/digits: is a link"):
        runs.publish(make_spec(), "digits", tmp_path / "runs", tmp_path / "published")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"Too many levels of symbolic links: .*loop"):
        runs.publish(make_spec(), "digits", tmp_path / "runs", tmp_path / "loop")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_collecting_replaces_no_folder_that_is_not_a_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", make_spec())
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed0" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not replaced"):
        runs.collect(run, tmp_path / "seed0")
    assert (tmp_path / "seed0" / "thesis.tex").read_text() == "mine"


def test_copies_have_the_checksums_of_what_was_copied(tmp_path: Path) -> None:
    spec = make_spec()
    run = write_run(tmp_path / "runs", spec)
    runs.collect(run, tmp_path / "seed0")
    published = runs.publish(spec, "digits", tmp_path / "runs", tmp_path / "published")
    assert set(read_checksums(tmp_path / "seed0") or ()) == set(DETERMINISTIC)
    assert set(read_checksums(published) or ()) == {*DETERMINISTIC, *MACHINE}
    assert runs.read_finished(tmp_path / "seed0").verified and runs.read_finished(published).verified
    provenance = Provenance.read(published)
    assert provenance is not None and {segment.hostname for segment in provenance.segments} == {""}


def test_a_run_without_checksums_is_accepted_and_said_to_be_unverified(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", make_spec())
    for name in (CHECKSUMS, MISTAKES):  # as before there were any
        (run / name).unlink()
    assert runs.finished(run, make_spec().identity)
    assert not runs.collect(run, tmp_path / "seed0").verified
    assert sorted(path.name for path in (tmp_path / "seed0").iterdir()) == sorted(set(DETERMINISTIC) - {MISTAKES})
    (run / WEIGHTS).write_bytes(b"other weights")
    with pytest.raises(UserError, match=WEIGHTS):
        runs.collect(run, tmp_path / "seed0")


def test_every_published_run_is_what_its_checksums_say() -> None:
    root = Path(__file__).parents[3] / "published"
    folders = sorted(path.parent for path in root.glob(f"*/*/{CONFIG}"))
    assert folders and all(runs.read_finished(folder).verified for folder in folders)
