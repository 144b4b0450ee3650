"""The run store: where runs live, how finished ones are found, collected, published and imported.

A run's folder is named ``<experiment>-s<seed>-<identity>``. A finished run is never trained again, a begun one is
resumed. ``published/`` holds the small files of finished runs, committed, so that a clone need not train them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from os.path import lexists
from pathlib import Path
from typing import Any

from pipeline.runs.execution import STOP_FILE
from pipeline.runs.finished import FinishedRun, read_finished, read_spec
from pipeline.runs.reading import CHECKSUMS, DamagedError, read_object, write_checksums
from pipeline.runs.records import (
    CHECKPOINTS,
    CONFIG,
    DETERMINISTIC,
    LOG,
    MACHINE,
    METRICS,
    PROGRESS,
    PROVENANCE,
    REQUIRED,
    SYSTEM,
    TIMING,
    TRIAL,
    WEIGHTS,
    Provenance,
)
from pipeline.runs.run_lock import LOCK
from pipeline.runs.run_store import RunStore
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import check_replaceable, real_path, replace_folder
from pipeline.utils.names import checked_plain_name
from pipeline.utils.object_store import is_url
from pipeline.utils.project import home

PUBLISHED = Path("published")
RESULTS = Path("results")
SEARCHES = "tune"  # in a store, the folder of the searches
OWN = (*DETERMINISTIC, *MACHINE, WEIGHTS, CHECKSUMS, PROGRESS, LOG, LOCK, SYSTEM, STOP_FILE, TRIAL, f"{CHECKPOINTS}/*")
"""Patterns of all files that may be in a run's folder."""


def store_folder(store: str, root: Path) -> Path:
    """The folder of a run store: itself, or where the copies of its runs are kept if it is behind a URL."""
    if is_url(store):
        return (home(root) / "runs" / f".copies-{hashlib.sha256(store.encode()).hexdigest()[:8]}").absolute()
    return (home(root) / store).absolute()


def finished(folder: Path, identity: str) -> bool:
    """Whether a folder has the files of the finished run of an identity.

    A run with a damaged file is a finished one, so that it is not trained again without a word: `read_finished`, which
    comes before any use, names the file.
    """
    if not all((folder / name).is_file() for name in REQUIRED):
        return False
    try:
        return read_spec(folder).identity == identity
    except DamagedError:
        return folder.name.endswith(f"-{identity}")


def locate(spec: RunSpec, store: Path, published: Path = PUBLISHED) -> Path | None:
    """The folder of a finished run: in the store, else in any profile of ``published/``; None if it is in neither."""
    candidates = [store / spec.folder_name, *sorted(published.glob(f"*/{spec.folder_name}"))]
    return next((folder for folder in candidates if finished(folder, spec.identity)), None)


def status(spec: RunSpec, store: Path, published: Path = PUBLISHED) -> str:
    """finished, published, paused, failed, begun or pending."""
    folder = store / spec.folder_name
    if finished(folder, spec.identity):
        return "finished"
    if locate(spec, store, published):
        return "published"
    provenance = Provenance.read(folder)
    if provenance is None:
        return "pending"
    # A run that says that it is finished and has no metrics was killed in between.
    return {"running": "begun", "finished": "begun"}.get(provenance.status, provenance.status)


def result_folder(spec: RunSpec, profile: str, results: Path = RESULTS) -> Path:
    """Where a run's results are collected for DVC: ``results/<profile>/<experiment>/seed<k>``."""
    return results / checked_plain_name(profile, "profile") / spec.experiment / f"seed{spec.seed}"


def collect(source: Path, target: Path) -> FinishedRun:
    """Copy the files of a finished run that depend on nothing but its numbers, with their checksums if it has any.

    Raises:
        DamagedError: if a file of the run is damaged; `target` stays as it is.
    """
    try:
        run = read_finished(source)
    except DamagedError as error:
        again = f"restore it, or delete {source} to train the run again"
        raise DamagedError(error.path, f"{error.reason}; {again}") from None
    check_run_folder(target, parents=2)
    with replace_folder(target, OWN) as fresh:
        _copy(source, fresh, DETERMINISTIC)
        if run.verified:
            write_checksums(fresh, DETERMINISTIC)
    return run


def publish(spec: RunSpec, profile: str, store: Path, published: Path = PUBLISHED) -> Path:
    """Copy a finished run's small files, no weights and no host names, to ``published/<profile>/``, with checksums.

    Raises:
        UserError: if the run is not finished, or is damaged; what was published stays as it is.
    """
    source = store / spec.folder_name
    if not finished(source, spec.identity):
        raise UserError(f"run {spec.name}: not finished in the store {store}, so it cannot be published")
    provenance = read_finished(source).provenance
    if provenance is None:
        raise UserError(f"{source}: no {PROVENANCE}, so the origin of its numbers is unknown")
    target = published / checked_plain_name(profile, "profile") / spec.folder_name
    check_run_folder(target, spec.identity, parents=1)
    with replace_folder(target, OWN) as fresh:
        _copy(source, fresh, (*DETERMINISTIC, TIMING))
        segments = tuple(replace(segment, hostname="") for segment in provenance.segments)
        replace(provenance, segments=segments).write(fresh)
        write_checksums(fresh, (*DETERMINISTIC, *MACHINE))
    return target


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy the files that are there."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def import_runs(folder: Path, store: Path, behind: RunStore | None = None) -> list[str]:
    """Bring runs made elsewhere, finished or paused, into the store; every identity is checked first.

    A run that is finished here, or has come further here, stays as it is. Of several copies of a run that with weights
    and provenance counts.

    Args:
        folder: a run's folder, or one that contains such folders. Trials of searches are passed over.
        behind: what `store` has copies of; they are without the checkpoints, so it is asked how far a run has come.

    Returns:
        The names of the folders that were new.

    Raises:
        UserError: if there is no run, one is damaged, an identity is not that of its configuration, the folder in the
            store is not that of the run, or a store behind a URL does not answer. Nothing is imported then.
    """
    found = _complete_copies(folder)
    if not found:
        raise UserError(f"{folder}: holds no run (no {CONFIG} at any depth)")
    new = {path: spec for path, spec in found.items() if _is_wanted(path, spec, store, behind)}
    for path, spec in new.items():
        _check_importable(path)
        check_run_folder(store / spec.folder_name, spec.identity)
    for path, spec in new.items():
        try:
            with replace_folder(store / spec.folder_name, OWN) as fresh:
                shutil.copytree(path, fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", STOP_FILE))
        except shutil.Error as error:
            raise UserError(f"{path}: cannot be copied ({one_line(error)})") from None
    return [spec.folder_name for spec in new.values()]


def _is_wanted(path: Path, spec: RunSpec, store: Path, behind: RunStore | None) -> bool:
    """Whether a run from elsewhere is one that the store does not have, or has not come as far with."""
    target = store / spec.folder_name
    if real_path(target) == real_path(path) or (finished(target, spec.identity) and _is_behind(spec, behind)):
        return False
    return lexists(path / METRICS) or _reached_here(store, spec.folder_name, behind) <= _reached(path)


def _check_importable(path: Path) -> None:
    """Refuse a run that is damaged, or has anything but files and folders in it: links may lead anywhere."""
    for file in path.rglob("*"):
        if file.is_symlink():
            raise DamagedError(file, "a link; a run is imported with its files themselves")
        if not file.is_dir() and not file.is_file():
            raise DamagedError(file, "not a regular file")
    if lexists(path / METRICS):
        read_finished(path)


def check_run_folder(target: Path, identity: str | None = None, *, parents: int = 0) -> None:
    """Refuse to replace anything but a run's own folder, or one without files.

    Args:
        identity: what the run in the folder must be; None for any run.
        parents: how many of the folders above it must not be links, either.

    Raises:
        UserError: for a folder that is another one; nothing in it has changed.
    """
    check_replaceable(target, OWN, parents=parents)
    with suppress(DamagedError):  # a damaged run is replaced, too
        found: Any = read_object(target / CONFIG).get("identity")
        if not isinstance(found, str) or identity not in (None, found):
            raise UserError(f"{target}: is not the folder of this run, so it is not replaced; move it away")


def _complete_copies(folder: Path) -> dict[Path, RunSpec]:
    """The runs below a folder; of several copies of one, that with most of it. What is being written is passed over."""
    best: dict[str, tuple[tuple[bool, bool, int], Path, RunSpec]] = {}
    for config in sorted(folder.rglob(CONFIG)):
        path = config.parent
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or (path / TRIAL).exists():
            continue
        spec = read_spec(path)
        worth = (path / WEIGHTS).exists(), (path / PROVENANCE).exists(), _reached(path)
        if spec.folder_name not in best or worth > best[spec.folder_name][0]:
            best[spec.folder_name] = worth, path, spec
    return {path: spec for _, path, spec in best.values()}


def _is_behind(spec: RunSpec, behind: RunStore | None) -> bool:
    """Whether a store behind a URL has the end of a run, too; what was copied there in part is copied again."""
    if behind is None:
        return True
    with behind.required():
        return behind.exists(f"{spec.folder_name}/{METRICS}")


def _reached(folder: Path) -> int:
    """Iteration of a run's newest checkpoint; -1 without one."""
    names = (path.name for path in (folder / CHECKPOINTS).glob("*"))
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def _reached_here(store: Path, run: str, behind: RunStore | None) -> int:
    """Iteration of the newest checkpoint of a run in the store; -1 without one."""
    if behind is None:
        return _reached(store / run)
    with behind.required():
        return behind.newest_checkpoint(run)


def folders(store: Path) -> Iterator[Path]:
    """All run folders of a store."""
    if store.is_dir():
        yield from sorted(path for path in store.iterdir() if (path / CONFIG).is_file())
