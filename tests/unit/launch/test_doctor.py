"""What the doctor finds, and what it says to type."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from pipeline import data
from pipeline.launch import doctor
from pipeline.settings import config, reading

ROOT = Path(__file__).parents[3]
SETTINGS = config.load(ROOT / "params.yaml")


def changed(**changes: Any) -> config.Config:
    """The active profile with some settings changed, e.g. `resources={"gpus": 1.0}`."""
    tree = reading.read_yaml(ROOT / "params.yaml")
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
    return config.parse(tree)


def test_a_finding_is_one_line_with_what_to_type() -> None:
    assert str(doctor.Finding("disk", "12 GiB free")) == "ok    disk      12 GiB free"
    wrong = doctor.Finding("disk", "full", "rm -r /tmp/x")
    assert str(wrong) == "WRONG disk      full; type: rm -r /tmp/x"
    assert not wrong.fine


def test_an_old_python_is_named_with_the_way_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.python().fine
    Version = namedtuple("Version", "major minor micro releaselevel serial")
    monkeypatch.setattr(sys, "version_info", Version(3, 10, 4, "final", 0))
    found = doctor.python()
    assert found.found.startswith("3.10.4, but 3.11 or newer is needed")
    assert found.cure == "make PYTHON=python3.12 repro"


def test_packages_are_compared_with_the_lock_file(tmp_path: Path) -> None:
    import numpy

    lock = tmp_path / "requirements.lock"
    lines = [
        f"numpy=={numpy.__version__} \\",
        "    --hash=sha256:00",
        "# a comment",
        "no-such-package==1.0 ; sys_platform == 'win32'",
    ]
    lock.write_text("\n".join(lines))
    assert doctor.packages(tmp_path).found == "all 1 are those of requirements.lock"
    lock.write_text("\n".join([*lines, "pytest==0.1 \\", "no-such-package==1.0"]))
    found = doctor.packages(tmp_path)
    assert re.fullmatch(r"pytest is [0-9.]+, not 0.1 \(and 1 more\)", found.found)
    assert found.cure == "touch requirements.lock && make repro"


def test_every_line_of_the_projects_own_lock_file_is_understood() -> None:
    assert {"torch", "ray", "mlflow", "dvc", "optuna"} <= doctor.locked(ROOT / "requirements.lock").keys()


@pytest.mark.parametrize(("gpus", "fine"), [("auto", True), (0.0, True), (0.5, False)])
def test_a_missing_gpu_is_wrong_only_where_one_is_asked_for(
    gpus: object, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = doctor.gpu(changed(resources={"gpus": gpus}))
    assert found.fine is fine
    assert fine or found.cure == "python -m pipeline compose digits resources.gpus=auto"


def test_a_driver_that_pytorch_cannot_use_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/dev/nvidiactl")
    assert doctor.gpu(SETTINGS).cure == "nvidia-smi"


def test_a_tracking_server_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    found = doctor.mlflow(SETTINGS, tmp_path)
    assert not found.fine and "127.0.0.1:1 does not answer" in found.found
    assert "secret" not in str(found)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "will be made by the first run" in doctor.mlflow(SETTINGS, tmp_path).found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    return tmp_path


def test_a_remote_is_looked_at(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.dvc(repository).found.startswith("no remote")
    add = [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "-f", "shelf"]
    subprocess.run([*add, str(repository / "shelf")], cwd=repository, check=True, timeout=120)
    assert doctor.dvc(repository).cure == "dvc push"
    (repository / "shelf").mkdir()
    assert doctor.dvc(repository).found.endswith("shelf answers")
    subprocess.run([*add, "http://127.0.0.1:1/"], cwd=repository, check=True, timeout=120)
    assert "nothing at http://127.0.0.1:1/, not reachable" in doctor.dvc(repository).found
    subprocess.run([*add, "gs://shelf/x"], cwd=repository, check=True, timeout=120)
    monkeypatch.setattr("dvc.data_cloud.DataCloud.get_remote", locked_out)
    found = doctor.dvc(repository)
    assert found.found == "remote shelf at gs://shelf/x: no credentials"
    assert found.cure == "dvc remote modify shelf url <url>"


def locked_out(*arguments: object) -> None:
    raise PermissionError("no credentials")


def test_data_that_are_missing_or_damaged_are_named_with_the_stage_that_makes_them(tmp_path: Path) -> None:
    assert doctor.data(SETTINGS, tmp_path).cure == "dvc repro prepare@digits"
    root = tmp_path / "data"
    data.fetch("digits", root=root)
    data.prepare("digits", root=root)
    assert doctor.data(SETTINGS, tmp_path).cure == "dvc repro corrupt@digits-10"
    for level in SETTINGS.data.noise_levels:
        data.corrupt("digits", level, root)
    found = doctor.data(SETTINGS, tmp_path)
    assert found.fine and "1437 training and 360 test images intact" in found.found
    (root / "prepared" / "digits" / "mean.npy").write_bytes(b"damaged")
    found = doctor.data(SETTINGS, tmp_path)
    assert "mean.npy" in found.found and found.cure == "dvc repro prepare@digits"


def test_a_disk_without_room_for_the_runs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(doctor, "room", lambda settings, root: 3 * doctor.GIB)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(9, 9, 4 * doctor.GIB))
    assert doctor.disk(SETTINGS, tmp_path).fine
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(9, 9, 2 * doctor.GIB))
    found = doctor.disk(SETTINGS, tmp_path)
    assert "2.0 GiB free" in found.found and "up to 3.0 GiB" in found.found
    assert found.cure == "python -m pipeline compose digits store=/path/with/room"


def test_room_counts_weights_of_every_run_and_checkpoints_with_momentum(tmp_path: Path) -> None:
    one = changed(experiments={}, seeds=[0]).model_copy(
        update={"experiments": {"attention56": SETTINGS.experiments["attention56"]}}
    )
    from models.counting import count

    assert doctor.room(one, tmp_path) == 4 * count("cifar_attention56", 10, 16).parameters * (
        1 + 2 * one.checkpoints.keep
    )
    assert doctor.room(one.model_copy(update={"seeds": (0, 1)}), tmp_path) == 2 * doctor.room(one, tmp_path)


def test_a_check_that_breaks_is_a_finding_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path
) -> None:
    (repository / "params.yaml").write_text((ROOT / "params.yaml").read_text())

    def broken(*arguments: object) -> doctor.Finding:
        raise OSError("libcuda.so:\ncannot open")

    for name in ("gpu", "ray"):
        monkeypatch.setattr(doctor, name, broken)
    found = {finding.check: finding for finding in doctor.examine(repository)}
    assert list(found) == [
        "Python",
        "packages",
        "git",
        "temporary",
        "settings",
        "GPU",
        "Ray",
        "MLflow",
        "network",
        "DVC",
        "data",
        "disk",
    ]
    assert str(found["GPU"]) == "WRONG GPU       libcuda.so: cannot open; type: nvidia-smi"
    assert found["packages"].found.endswith("requirements.lock'") and not found["packages"].fine
    assert found["DVC"].fine


def test_settings_that_are_wrong_end_the_examination_with_their_own_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("flip: false", "flip: 7"))
    last = list(doctor.examine(tmp_path))[-1]
    assert last.check == "settings" and "protocol.flip = 7" in last.found
    assert last.cure == "python -m pipeline compose digits"


def test_outside_a_project_the_doctor_says_where_to_go(tmp_path: Path) -> None:
    last = list(doctor.examine(tmp_path))[-1]
    assert last.check == "project" and last.cure.startswith("cd ")


@pytest.mark.slow
def test_ray_is_really_started_and_compared_with_what_a_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = doctor.ray(SETTINGS, ROOT)
    assert re.fullmatch(r"this machine trains \d+ runs at once, each on 1 worker with 1 thread.*", found.found)
    greedy = doctor.ray(changed(resources={"threads": 1024}), ROOT)
    assert greedy.found.startswith("resources.threads = 1024: must be at most ") and not greedy.fine
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    gone = doctor.ray(SETTINGS, ROOT)
    assert "127.0.0.1:1" in gone.found and gone.cure == "unset RAY_ADDRESS"
