"""What the doctor says of git, merges and temporary folders: each has its own cure."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from pipeline.cli import bypass_proxies
from pipeline.launch import surroundings
from pipeline.utils.git import origin

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "protocol.file.allow=always")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text("[user]\nname = t\nemail = t@localhost\n[protocol.file]\nallow = always\n")
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    (root / ".dvc" / "config").touch()
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_a_repository_a_worktree_a_submodule_and_a_shallow_clone_are_fine(repository: Path, tmp_path: Path) -> None:
    assert surroundings.git(repository).found == "answers"
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert surroundings.git(tmp_path / "tree").fine
    git(tmp_path, "init", "-q", "around")
    git(tmp_path / "around", "submodule", "add", "-q", str(repository), "inner")
    assert surroundings.git(tmp_path / "around" / "inner").fine
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    found = surroundings.git(tmp_path / "shallow")
    assert found.fine and "git fetch --unshallow" in found.found


def test_a_worktree_or_submodule_without_its_repository_says_how_to_repair_it(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"))
    git(tmp_path, "init", "-q", "around")
    git(tmp_path / "around", "submodule", "add", "-q", str(repository), "inner")
    repository.rename(tmp_path / "moved")
    assert surroundings.git(tmp_path / "tree").cure.startswith(f"git worktree repair {tmp_path / 'tree'} (in ")
    (tmp_path / "around" / ".git" / "modules").rename(tmp_path / "lost")
    assert surroundings.git(tmp_path / "around" / "inner").cure.startswith("git submodule update --init (in ")


def test_a_download_without_git_is_told_what_to_type_and_is_fine_after_it(repository: Path) -> None:
    (repository / ".git").rename(repository / "no-git")
    assert surroundings.git(repository).cure == "dvc config --local core.no_scm true"
    (repository / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    assert surroundings.git(repository).fine


def test_a_missing_identity_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    found = surroundings.git(repository)
    assert "`dvc exp run` needs" in found.found and found.cure.startswith("git config --global user.name")


def test_dubious_ownership_is_named_by_the_doctor_and_by_a_run_that_loses_its_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    found = surroundings.git(repository)
    assert "dubious ownership" in found.found
    assert found.cure == f"git config --global --add safe.directory {repository}"
    assert origin(repository).commit is None
    assert "dubious ownership" in caplog.text and "safe.directory" in caplog.text


@pytest.mark.parametrize("name", surroundings.MERGED)
def test_conflict_markers_are_named_with_the_command_that_removes_them(name: str, repository: Path) -> None:
    for step, text in (("-qB main", "a: 0"), ("-qb other", "a: 1"), ("-q main", "a: 2")):
        git(repository, "checkout", *step.split())
        (repository / name).write_text(f"{text}\n")
        git(repository, "add", "-A")
        git(repository, "commit", "-qm", text)
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "other")
    found = surroundings.git(repository)
    assert found.found == f"{name} has conflict markers of a merge"
    assert found.cure.startswith(f"git checkout --ours {name}")
    git(repository, "commit", "-qam", "with its markers")
    assert surroundings.git(repository).cure.startswith(f"${{EDITOR:-vi}} {name}")
    assert ("dvc repro" in found.cure) is (name == "dvc.lock")


def test_a_busy_port_and_a_proxy_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(surroundings, "UI_PORT", port)
        monkeypatch.setattr(surroundings, "_serves_mlflow", lambda: False)
        found = surroundings.network()
        assert f"port {port} is in use" in found.found
        assert found.cure == f"make ui PORT={port + 1}"
        monkeypatch.setattr(surroundings, "_serves_mlflow", lambda: True)
        assert surroundings.network().fine
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "https_proxy is not used for this machine itself" in surroundings.network().found


@pytest.mark.parametrize(
    ("folder", "cure"),
    [
        ("ray", "export RAY_TMPDIR="),
        ("site", "dvc config --local core.site_cache"),
        (".dvc/tmp", "sudo chown -R "),
    ],
)
def test_a_temporary_folder_of_another_user_has_its_own_cure(
    folder: str, cure: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    theirs = repository / folder if folder.startswith(".dvc") else tmp_path / folder
    theirs.mkdir()
    assert surroundings.temporary(repository).fine
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != theirs)
    found = surroundings.temporary(repository)
    assert str(theirs) in found.found and found.cure.startswith(cure)


def test_loopback_is_not_proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests.utils import should_bypass_proxies

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.org")
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    bypass_proxies()
    for url, direct in {"http://127.0.0.1:5000": True, "http://localhost:5000": True, "http://a.org": False}.items():
        assert bool(should_bypass_proxies(url, None)) is direct
    assert os.environ["no_proxy"].startswith("example.org,")
