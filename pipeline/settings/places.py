"""Names and places that settings may have, for the settings and for a plan that was made from them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pipeline.runs.spec import RUN_FOLDER
from pipeline.runs.store import SEARCHES
from pipeline.utils.names import LONGEST, NAME
from pipeline.utils.object_store import is_url

# What the project itself keeps in its folder: no store of runs may be there.
OWNED = frozenset(
    ("benchmarks", "cluster", "conf", "data", "docs", "models", "pipeline", "published", "reports", "results",
     "tests", "tune", "mlartifacts", "mlruns", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile",
     "LICENSE", "Makefile", "README.md", "hubconf.py", "dvc.lock", "dvc.yaml", "mlflow.db", "params.yaml",
     "plan.json", "pyproject.toml", "requirements.lock")
)  # fmt: skip
LONGEST_NAME = 100  # of an experiment; the folder of a run has seed and identity in its name, too
OF_ITS_OWN = "must be a folder of its own, such as runs or /scratch/runs, or a URL such as s3://bucket/runs"


def simple_name(name: str) -> str:
    """Return a name of a profile, an experiment or a data set; ValueError, with what is allowed, for any other."""
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"must be a name of lower-case letters, digits, '-' and '_', at most {LONGEST_NAME} of them"
            " (it names folders and stages)"
        )
    return name


def free_place(store: str) -> str:
    """Return a run store if it may be one.

    Raises:
        ValueError: with what is allowed, for a malformed URL, for a folder that is the project's own or contains the
            project, and for one that has other things than runs in it.
    """
    folder = store
    if is_url(store):
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s]+", store):
            raise ValueError("must be a folder, or a URL such as s3://bucket/runs")
        scheme, _, folder = store.partition("://")
        if scheme not in ("file", "local"):
            return store
    project = Path.cwd()
    path = project / re.sub("^//+", "/", folder)  # POSIX keeps two slashes apart from one
    if max(len(part.encode(errors="replace")) for part in path.parts) > LONGEST:
        raise ValueError(f"must have parts of at most {LONGEST} bytes")
    first = path.relative_to(project).parts[:1] if path.is_relative_to(project) else ()
    if (
        ".." in path.parts
        or project.is_relative_to(path)
        or folder.startswith("~")
        or any(name in OWNED or name.startswith(".") for name in first)
        or path.is_file()
        or _has_other_things(path)
    ):
        raise ValueError(OF_ITS_OWN)
    return store


def _has_other_things(folder: Path) -> bool:
    """Return whether a folder is neither empty nor one with runs or searches."""
    names: list[str] = []
    with suppress(OSError):  # no such folder, or one that cannot be read, which is reported when it is used
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    return bool(names) and not any(RUN_FOLDER.fullmatch(name) or name == SEARCHES for name in names)
