"""Provenance of a profile as an RO-Crate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from pipeline.cli import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    assert main(["runs", "crate", str(tmp_path / "crate"), "--profile", "cifar10-short"]) == 0
    return tmp_path / "crate"


def test_a_crate_has_every_published_run_with_its_code_data_and_results(crate: Path) -> None:
    read = ROCrate(crate)
    published = {folder.name for folder in (ROOT / "published" / "cifar10-short").iterdir()}
    actions = {action.id.removeprefix("#run-"): action for action in read.get_by_type("CreateAction")}
    assert actions.keys() == published
    for name, action in actions.items():
        config, data = action["object"]
        assert config.id == f"runs/{name}/config.json" and data["name"] == "cifar10"
        assert len(action["instrument"]["version"]) == 40, "a commit"
        assert action["startTime"] < action["endTime"]
        assert {f"runs/{name}/metrics.json", f"runs/{name}/history.csv"} <= {file.id for file in action["result"]}
    assert "do not reproduce the paper's" in read.description
    assert read.root_dataset["conformsTo"].id.startswith("https://w3id.org/ro/wfrun/process/")


def test_every_file_of_a_crate_is_described_and_has_its_checksum(crate: Path) -> None:
    files = {file.id: file for file in ROCrate(crate).get_by_type("File")}
    there = {str(path.relative_to(crate)) for path in crate.rglob("*") if path.is_file()}
    assert there - {"ro-crate-metadata.json"} == files.keys()
    for name, file in files.items():
        assert file["sha256"] == hashlib.sha256((crate / name).read_bytes()).hexdigest(), name


def test_a_crate_replaces_nothing_and_is_not_made_of_nothing(crate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "crate", str(crate), "--profile", "cifar10-64th"]) == 2
    assert "exists; name a folder that does not" in capsys.readouterr().err
    assert main(["runs", "crate", str(crate / "new"), "--profile", "cifar100"]) == 2
    assert "no run is finished or published" in capsys.readouterr().err
    assert not (crate / "new").exists()
