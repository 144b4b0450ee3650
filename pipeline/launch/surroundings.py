"""What surrounds the project on a machine: git, merge conflicts, temporary folders, ports and proxies."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.utils.project import UI_PORT

CONFLICT = "<<<<<<< "
_SITE_CACHE = 'dvc config --local core.site_cache_dir "$HOME/.cache/dvc"'
MERGED = ("dvc.lock", "params.yaml", "dvc.yaml")


@dataclass(frozen=True)
class Finding:
    """The result of one check. `cure` is what to type, empty where nothing is wrong."""

    check: str
    found: str
    cure: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return not self.cure

    def __str__(self) -> str:
        line = f"{'ok   ' if self.fine else 'WRONG'} {self.check:9} {self.found}"
        return line if self.fine else f"{line}; type: {self.cure}"


def git(root: Path) -> Finding:
    """Return whether git records where runs come from, and whether `dvc exp run` can commit."""
    try:
        shallow, error = _git(root, "rev-parse", "--is-shallow-repository")
    except FileNotFoundError:
        return Finding("git", "not installed", "apt-get install git")
    if error:
        return _no_repository(root, error)
    if conflict := next((name for name in MERGED if _has_conflict(root / name)), None):
        again = " && dvc repro" if conflict == "dvc.lock" else ""
        unmerged, _ = _git(root, "ls-files", "--unmerged", conflict)  # nothing where the markers have been committed
        how = f"git checkout --ours {conflict}" if unmerged else f"${{EDITOR:-vi}} {conflict}"
        cure = f"{how}{again} && git add {conflict}"
        return Finding("git", f"{conflict} has conflict markers of a merge", cure)
    if _git(root, "var", "GIT_COMMITTER_IDENT")[1]:
        cure = 'git config --global user.name "..." && git config --global user.email "..."'
        return Finding("git", "no user.name and user.email, which `dvc exp run` needs", cure)
    if shallow == "true":
        return Finding("git", "a shallow clone: `git fetch --unshallow` brings the commits of published runs")
    return Finding("git", "answers")


def _no_repository(root: Path, error: str) -> Finding:
    if "dubious ownership" in error:
        cure = f"git config --global --add safe.directory {root}"
        return Finding("git", f"dubious ownership: {root} belongs to another user; runs do not record a commit", cure)
    if (root / ".git").is_file():  # of a worktree or a submodule, whose repository has been moved
        worktree = "/worktrees/" in (root / ".git").read_text(encoding="utf-8")
        where = "the repository that this worktree belongs to" if worktree else "the repository around this submodule"
        cure = f"git worktree repair {root}" if worktree else "git submodule update --init"
        return Finding("git", f"{root / '.git'} leads nowhere", f"{cure} (in {where})")
    if _dvc_config(root)["core"].get("no_scm"):
        return Finding("git", "no repository (core.no_scm): runs do not record a commit")
    return Finding("git", "no repository, e.g. a ZIP download", "dvc config --local core.no_scm true")


def network() -> Finding:
    """Return whether the port of the MLflow UI is free or serves it already, and whether a proxy is set."""
    try:
        socket.create_server(("127.0.0.1", UI_PORT)).close()
        port = f"port {UI_PORT} is free for `make ui`"
    except OSError:
        if not _serves_mlflow():
            return Finding(
                "network", f"port {UI_PORT} is in use, so `make ui` needs another", f"make ui PORT={UI_PORT + 1}"
            )
        port = f"an MLflow UI is at http://127.0.0.1:{UI_PORT}"
    proxies = sorted(name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
    proxy = f"{', '.join(proxies)} is not used for this machine itself" if proxies else "no proxy is set"
    return Finding("network", f"{port}; {proxy}")


def _serves_mlflow() -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{UI_PORT}/health", timeout=2) as answer:
            return bool(answer.read(3) == b"OK")
    except (OSError, http.client.HTTPException):
        return False


def temporary(root: Path) -> Finding:
    """Return whether Ray and DVC can write their temporary folders, which another user may have made."""
    from dvc.dirs import site_cache_dir

    ray = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    for folder, owner, cure in (
        (ray, "Ray", "export RAY_TMPDIR=/tmp/ray-$USER"),
        (Path(site_cache_dir(_dvc_config(root)["core"].get("site_cache_dir"))), "DVC", _SITE_CACHE),
        (root / ".dvc" / "tmp", "DVC", f'sudo chown -R "$USER" {root / ".dvc"}'),
        (root / ".dvc" / "cache", "DVC", f'sudo chown -R "$USER" {root / ".dvc"}'),
    ):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            return Finding("temporary", f"{owner} cannot write {folder}, which belongs to another user", cure)
    return Finding("temporary", f"{ray.parent} and {root / '.dvc'} can be written")


def _dvc_config(root: Path) -> Any:
    from dvc.config import Config

    return Config(dvc_dir=str(root / ".dvc"), validate=False)


def _has_conflict(path: Path) -> bool:
    try:
        return any(line.startswith(CONFLICT) for line in path.read_text(encoding="utf-8").splitlines())
    except OSError:
        return False


def _git(root: Path, *arguments: str) -> tuple[str, str]:
    """Return what git prints, and its error message where it fails."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    return done.stdout.strip(), (done.stderr.strip() or "failed") if done.returncode else ""
