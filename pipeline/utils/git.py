"""Where the running code comes from: commit, uncommitted changes, command."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

# What may differ from the commit without making the code another: outputs of the pipeline itself.
OUTPUTS = (":!reports", ":!published", ":!dvc.lock", ":!params.yaml")


@dataclass(frozen=True)
class Origin:
    """Commit of the checkout (None outside git), whether its code has been changed since, and the command."""

    commit: str | None
    dirty: bool
    command: str


def origin(root: Path = Path()) -> Origin:
    """The origin of the code in a checkout."""
    command = " ".join(["python -m pipeline", *sys.argv[1:]])
    commit = _git(root, "rev-parse", "HEAD")
    dirty = bool(commit and _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *OUTPUTS))
    return Origin(commit, dirty, command)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in error.stderr:
            logger.warning(
                "git refuses %s (dubious ownership): the run does not record its commit; type:"
                " git config --global --add safe.directory %s",
                *(2 * [root.resolve()]),
            )
        return None
    except OSError:
        return None
    return done.stdout.strip() or None
