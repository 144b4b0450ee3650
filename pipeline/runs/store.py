"""The run store: where runs live, how finished ones are found, collected, published and imported.

A run's folder is named ``<experiment>-s<seed>-<identity>``. A finished run is never trained again, a begun one is
resumed. ``published/`` holds the small files of finished runs, committed, so that a clone need not train them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.runs.execution import STOP_FILE
from pipeline.runs.records import (
    CHECKPOINTS,
    CONFIG,
    DETERMINISTIC,
    MACHINE,
    METRICS,
    PROVENANCE,
    WEIGHTS,
    Provenance,
)
from pipeline.runs.run_store import RunStore
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import read_json, replace_folder
from pipeline.utils.object_store import is_url

PUBLISHED = Path("published")
RESULTS = Path("results")


def store_folder(store: str, root: Path) -> Path:
    """The folder of a run store: itself, or where the copies of its runs are kept if it is behind a URL."""
    if is_url(store):
        return (root / "runs" / f".copies-{hashlib.sha256(store.encode()).hexdigest()[:8]}").absolute()
    return (root / store).absolute()


def finished(folder: Path, identity: str) -> bool:
    """Whether a folder holds the whole, finished run of an identity."""
    return all((folder / name).is_file() for name in DETERMINISTIC) and _identity(folder) == identity


def _identity(folder: Path) -> str | None:
    try:
        return read_json(folder / CONFIG).get("identity")
    except UserError:
        return None


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
    return results / profile / spec.experiment / f"seed{spec.seed}"


def collect(source: Path, target: Path) -> None:
    """Copy the files of a finished run that depend on nothing but its numbers."""
    with replace_folder(target) as fresh:
        for name in DETERMINISTIC:
            shutil.copyfile(source / name, fresh / name)


def publish(spec: RunSpec, profile: str, store: Path, published: Path = PUBLISHED) -> Path:
    """Copy a finished run's small files, no weights and no host names, to ``published/<profile>/``."""
    source = store / spec.folder_name
    if not finished(source, spec.identity):
        raise UserError(f"run {spec.name}: not finished in the store {store}, so it cannot be published")
    target = published / profile / spec.folder_name
    provenance = Provenance.read(source)
    if provenance is None:
        raise UserError(f"{source}: no provenance.json, so nobody could tell where the numbers come from")
    with replace_folder(target) as fresh:
        for name in (*DETERMINISTIC, *MACHINE):
            shutil.copyfile(source / name, fresh / name)
        segments = tuple(replace(segment, hostname="") for segment in provenance.segments)
        replace(provenance, segments=segments).write(fresh)
    return target


def import_runs(folder: Path, store: Path, behind: RunStore | None = None) -> list[str]:
    """Bring runs made elsewhere, finished or paused, into the store; every identity is checked first.

    A run that is finished here, or has come further here, stays as it is. Of several copies of a run that with weights
    and provenance counts.

    Args:
        folder: a run's folder, or one that contains such folders. Trials of searches are passed over.
        behind: what `store` has copies of; they are without the checkpoints, so it is asked how far a run has come.

    Returns:
        the names of the folders that were new.

    Raises:
        UserError: if there is no run, an identity is not that of its configuration, weights are not those of the
            metrics, or a store behind a URL does not answer. Nothing is imported then.
    """
    found = _complete_copies(folder)
    if not found:
        raise UserError(f"{folder}: holds no run (no {CONFIG} at any depth)")
    for path in found:
        _check_whole(path)
    here = {path: _reached_here(store, spec.folder_name, behind) for path, spec in found.items()}
    new = []
    for path, spec in found.items():
        target = store / spec.folder_name
        if target.resolve() == path.resolve() or (finished(target, spec.identity) and _is_behind(spec, behind)):
            continue
        if not finished(path, spec.identity) and here[path] > _reached(path):
            continue
        with replace_folder(target) as fresh:
            shutil.copytree(path, fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", STOP_FILE))
        new.append(spec.folder_name)
    return new


def _complete_copies(folder: Path) -> dict[Path, RunSpec]:
    """The runs below a folder; of several copies of one, that with most of it. What is being written is passed over."""
    from pipeline.tuning.trials import TRIAL

    best: dict[str, tuple[tuple[bool, bool, int], Path, RunSpec]] = {}
    for config in sorted(folder.rglob(CONFIG)):
        path = config.parent
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or (path / TRIAL).exists():
            continue
        spec = RunSpec.from_json(read_json(config), config)
        worth = (path / WEIGHTS).exists(), (path / PROVENANCE).exists(), _reached(path)
        if spec.folder_name not in best or worth > best[spec.folder_name][0]:
            best[spec.folder_name] = worth, path, spec
    return {path: spec for _, path, spec in best.values()}


def _is_behind(spec: RunSpec, behind: RunStore | None) -> bool:
    """Whether a store behind a URL has the end of a run, too; what was copied there in part is copied again."""
    if behind is None:
        return True
    try:
        return behind.exists(f"{spec.folder_name}/{METRICS}")
    except OSError as error:
        raise UserError(f"store = {behind.url!r}: {one_line(error)}") from None


def _reached(folder: Path) -> int:
    """Iteration of a run's newest checkpoint; -1 without one."""
    names = (path.name for path in (folder / CHECKPOINTS).glob("*"))
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def _reached_here(store: Path, run: str, behind: RunStore | None) -> int:
    """The same of a run of the store."""
    if behind is None:
        return _reached(store / run)
    try:
        return behind.reached(run)
    except OSError as error:
        raise UserError(f"store = {behind.url!r}: {one_line(error)}") from None


def _check_whole(path: Path) -> None:
    """Refuse weights that are not those of the metrics."""
    from pipeline.utils.files import sha256_file

    if (path / METRICS).exists() and (path / WEIGHTS).exists():
        wanted, got = read_json(path / METRICS).get("weights_sha256"), sha256_file(path / WEIGHTS)
        if wanted != got:
            raise UserError(f"{path / WEIGHTS}: checksum {got} is not {wanted}, the one in {METRICS}")


def folders(store: Path) -> Iterator[Path]:
    """All run folders of a store."""
    if store.is_dir():
        yield from sorted(path for path in store.iterdir() if (path / CONFIG).is_file())
