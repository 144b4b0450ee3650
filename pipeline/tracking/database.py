"""The SQLite database that is the default store: whether it can be used, and where its artifacts are."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from urllib.parse import unquote, urlsplit

from pipeline.utils.files import real_path

SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
EXPERIMENTS = "residual-attention/"  # followed by the profile
SYNC = "python -m pipeline track --sync"
UNQUOTED = "%?#"  # characters that have a meaning in a URI, and for which SQLAlchemy knows no escape
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class UnusableError(OSError):
    """A store that cannot be used until the user does something: `cure` is what to type."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem)
        self.cure = cure


def sqlite_uri(path: Path) -> str:
    """The URI of a database: its absolute path, or the one from here where that would not be read as it stands."""
    path = real_path(path)
    shown = os.path.relpath(path) if any(character in str(path) for character in UNQUOTED) else str(path)
    return f"{SQLITE}{shown}"


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI; None for any other."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def check(path: Path) -> None:
    """Find out in milliseconds what MLflow would find out after minutes.

    Raises:
        UnusableError: if there is something of that name that this MLflow cannot use.
    """
    if real_path(path).is_symlink():
        raise UnusableError("a link that leads in a circle", put_aside(path))
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{real_path(path).as_uri()}?mode=rw", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = database.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
            unknown = [version for (version,) in found if version not in _known_versions()]
    except sqlite3.Error as error:
        if "locked" in str(error):
            return  # MLflow waits for that
        if path.is_file() and not os.access(path, os.R_OK | os.W_OK):
            raise UnusableError("cannot be read and written", f"chmod u+rw {quote(str(path))}") from None
        problem = "a folder, not a database" if path.is_dir() else f"not a usable database ({error})"
        raise UnusableError(problem, put_aside(path)) from None
    if unknown:
        raise UnusableError(f"made by a newer MLflow (its schema {unknown[0]} is unknown here)", put_aside(path))


def put_aside(path: Path) -> str:
    """Commands that replace a database by one made from the files of the runs, or leave one that the user named."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return f"unset MLFLOW_TRACKING_URI && {SYNC}"
    return f"mv {quote(str(path))} {quote(f'{path}.old')} && {SYNC}"


def _known_versions() -> set[str]:
    """The schemas that the installed MLflow has migrations for, found without importing it."""
    mlflow = find_spec("mlflow")
    assert mlflow is not None
    assert mlflow.origin is not None
    migrations = Path(mlflow.origin).parent / "store" / "db_migrations" / "versions"
    return {path.name.partition("_")[0] for path in migrations.glob("*.py")}


def moved_from(path: Path) -> Path | None:
    """The folder that a database was in when its artifacts were recorded, if it is another one now."""
    if not path.is_file():
        return None
    with closing(sqlite3.connect(f"{real_path(path).as_uri()}?mode=ro", uri=True)) as database:
        return next(_former_folders(database, real_path(path).parent), None)


def _former_folders(database: sqlite3.Connection, folder: Path) -> Iterator[Path]:
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return
    found = database.execute(
        "SELECT DISTINCT name, artifact_location FROM experiments WHERE name LIKE ?", (f"{EXPERIMENTS}%",)
    )
    for name, location in found.fetchall():
        parts = urlsplit(location or "")
        place = Path(unquote(parts.path) if parts.scheme == "file" else location or "")
        profile = name.removeprefix(EXPERIMENTS)
        if place.is_absolute() and place.parts[-2:] == (ARTIFACTS, profile) and place.parents[1] != folder:
            yield place.parents[1]


def relocate(path: Path) -> Path | None:
    """Let the artifacts of a database that was moved or copied be those beside it; the folder it was in before."""
    folder, before = real_path(path).parent, None
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        for former in set(_former_folders(database, folder)):
            before = former
            for table, column in LOCATIONS:
                for old in (f"{former / ARTIFACTS}/", f"{(former / ARTIFACTS).as_uri()}/"):
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (f"{(folder / ARTIFACTS).as_uri()}/", len(old) + 1, len(old), old),
                    )
    return before
