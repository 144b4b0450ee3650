"""The command line as a program: where it can be called from, and with what Python."""

from __future__ import annotations

import argparse
import ast
import errno
import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline import cli

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "profile").mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    return tmp_path


def test_a_command_works_from_any_subfolder_and_its_paths_keep_their_meaning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "docs" / "deep")
    (project / "docs" / "weights.safetensors").touch()
    options = argparse.Namespace(
        onnx=Path("out.onnx"), trained="../weights.safetensors", number="table3/attention92/nal", images=[Path("a.png")]
    )
    cli.enter_project(options)
    assert Path.cwd() == project
    assert options.onnx == project / "docs" / "deep" / "out.onnx"
    assert Path(options.trained).resolve() == project / "docs" / "weights.safetensors"
    assert options.number == "table3/attention92/nal"
    assert options.images == [project / "docs" / "deep" / "a.png"]


def test_outside_a_project_and_in_its_own_folder_nothing_changes(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (project, tmp_path_factory.mktemp("elsewhere")):
        monkeypatch.chdir(folder)
        options = argparse.Namespace(onnx=Path("out.onnx"))
        cli.enter_project(options)
        assert Path.cwd() == folder and options.onnx == Path("out.onnx")


def test_an_old_python_is_one_line_that_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    Version = namedtuple("Version", "major minor micro releaselevel serial")
    monkeypatch.setattr(sys, "version_info", Version(3, 9, 4, "final", 0))
    with pytest.raises(
        SystemExit, match=r"error: this is Python 3\.9 .* 3\.11 or newer is needed; type: make repro PYTHON="
    ):
        cli.run_and_exit()


@pytest.mark.parametrize("file", ["pipeline/__init__.py", "pipeline/__main__.py", "pipeline/cli/__init__.py"])
def test_what_an_old_python_has_to_read_before_that_is_in_its_language(file: str) -> None:
    ast.parse((ROOT / file).read_text(), feature_version=(3, 7))


def test_a_python_without_the_packages_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "models.summary", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["describe", "attention56"])  # a module of the project that is missing is a defect, not a cure
    monkeypatch.setattr(cli, "enter_project", _needs_a_package)
    assert cli.main(["doctor"]) == 1
    assert "has no package 'torch'; type: make repro" in capsys.readouterr().err


def _needs_a_package(options: object) -> None:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "{}", "a.png"],
        ["predict", "{}/weights", "a.png"],
        ["runs", "crate", "{}", "--profile", "cifar10-short"],
        ["fetch", "cifar10", "--source", "{}"],
        ["tune", "--space", "{}"],
        ["export", "{}", "--onnx", "a.onnx"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have_is_one_line_with_status_2(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        status = cli.main([part.replace("{}", "x" * 300) for part in command])
    except SystemExit as usage:
        status = int(usage.code or 0)
    printed = capsys.readouterr().err
    assert status == 2 and "xxx" in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENAMETOOLONG, 2), (errno.ELOOP, 2), (errno.EISDIR, 2), (errno.ENOSPC, 1)]
)
def test_a_path_that_cannot_be_is_a_mistake_and_a_full_disk_is_none(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> None:
        raise OSError(number, os.strerror(number), "a\nb")

    monkeypatch.setattr(cli, "enter_project", fail)
    assert cli.main(["doctor"]) == status
    assert capsys.readouterr().err == f"error: a\\nb: {os.strerror(number)}\n"


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert "residual-attention" in script and "verify-resume" in script
