"""Checks of this machine and this project: one line each, with what to type where something is wrong."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.launch import surroundings
from pipeline.launch.surroundings import Finding
from pipeline.runs.store import store_folder
from pipeline.settings.plan import PARAMS
from pipeline.utils.cores import available_cores
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.object_store import ObjectStore, is_url
from pipeline.utils.project import is_project

if TYPE_CHECKING:
    from pipeline.settings.tree import Config

LOCK = "requirements.lock"
PYTHON = (3, 11)
BYTES = 4  # of a parameter; its momentum takes as many in a checkpoint
GIB = 2**30


def examine(root: Path) -> Iterator[Finding]:
    """Yield the findings of all checks; a check that itself fails is a finding, too."""
    yield _guarded("Python", "make repro", python)
    if not is_project(root) and not (root / PARAMS).exists():
        yield Finding("project", f"{root} is not below a folder of this project", "cd <folder of the project>")
        return
    yield _guarded("packages", "make repro", lambda: packages(root))
    yield _guarded("git", "git status", lambda: surroundings.git(root))
    yield _guarded("temporary", "dvc doctor", lambda: surroundings.temporary(root))
    try:
        from pipeline.settings import config

        settings = config.load(root / config.PARAMS)
    except (UserError, ImportError) as error:
        yield Finding("settings", one_line(error), "python -m pipeline compose digits")
        return
    yield Finding("settings", f"profile {settings.profile}, {len(settings.experiments)} experiments")
    yield _guarded("GPU", "nvidia-smi", lambda: gpu(settings))
    yield _guarded("Ray", "ray status", lambda: ray(settings, root))
    yield _guarded("MLflow", "python -m pipeline ui", lambda: mlflow(settings, root))
    yield _guarded("network", "env | grep -i proxy", surroundings.network)
    yield _guarded("DVC", "dvc doctor", lambda: dvc(root))
    yield _guarded("data", "dvc repro prepare", lambda: data(settings, root))
    if is_url(settings.store):
        cure = f"python -m pipeline compose {settings.profile} store=runs"
        yield _guarded("store", cure, lambda: object_store(settings))
    yield _guarded("disk", "df -h", lambda: disk(settings, root))


def _guarded(check: str, cure: str, examine_it: Callable[[], Finding]) -> Finding:
    try:
        return examine_it()
    except Exception as error:  # whatever a broken installation does must not hide the other findings
        return Finding(check, one_line(error), cure)


def python() -> Finding:
    """Check that this Python is new enough."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON:
        return Finding("Python", f"{version} at {sys.executable}")
    return Finding(
        "Python", f"{version}, but {'.'.join(map(str, PYTHON))} or newer is needed", "make PYTHON=python3.12 repro"
    )


def packages(root: Path) -> Finding:
    """Check that the installed packages are those of the lock file."""
    wanted = locked(root / LOCK)
    different = []
    for name, version in wanted.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            different.append(f"{name} is missing")
            continue
        if installed.partition("+")[0] != version.partition("+")[0]:
            different.append(f"{name} is {installed}, not {version}")
    if not different:
        return Finding("packages", f"all {len(wanted)} are those of {LOCK}")
    more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
    return Finding("packages", f"{different[0]}{more}", f"touch {LOCK} && make repro")


def locked(path: Path) -> dict[str, str]:
    """Return name and version of every package that the lock file has for this machine."""
    from packaging.requirements import Requirement

    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith((" ", "#", "-")):
            continue  # a hash or a comment
        requirement = Requirement(line.rstrip("\\ "))
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            found[requirement.name] = pin.version
    return found


def gpu(settings: Config) -> Finding:
    """Check that PyTorch sees the GPUs that the profile asks for, or that the machine has."""
    import torch

    asked = settings.resources.gpus
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("GPU", f"{names} (CUDA {torch.version.cuda})")
    if Path("/dev/nvidiactl").exists():
        return Finding("GPU", f"there is an NVIDIA driver, but PyTorch {torch.__version__} cannot use it", "nvidia-smi")
    if asked not in ("auto", 0, 0.0) and not os.environ.get("RAY_ADDRESS"):
        compose = f"python -m pipeline compose {settings.profile} resources.gpus=auto"
        return Finding("GPU", f"none, but resources.gpus = {asked} asks for one", compose)
    return Finding("GPU", f"none: runs train on {available_cores()} CPU cores")


def ray(settings: Config, root: Path) -> Finding:
    """Check that Ray starts here, or answers at RAY_ADDRESS, runs a task, and has what a run of the profile needs."""
    from pipeline.launch import placement
    from pipeline.launch.ray_process import RayLostError, RayProcess

    resources = settings.resources
    address = os.environ.get("RAY_ADDRESS")
    try:
        with RayProcess(root) as process:
            worker_resources = process.call(placement.share, resources)
            slots = process.call(placement.parallel, resources, worker_resources)
            process.call(placement.run_task)
    except (UserError, RayLostError) as error:
        cure = "unset RAY_ADDRESS" if address else f"python -m pipeline compose {settings.profile}"
        return Finding("Ray", one_line(error), cure)
    where = f"the cluster at {address}" if address else "this machine"
    return Finding(
        "Ray", f"{where} trains {slots} runs at once, each on {worker_resources.describe(resources.workers)}"
    )


def mlflow(settings: Config, root: Path) -> Finding:
    """Check that the tracking store answers, and that its artifacts are where it says."""
    from pipeline import tracking
    from pipeline.tracking.database import SYNC, moved_from, sqlite_path
    from pipeline.tracking.store import cure, probe, redacted

    uri = tracking.tracking_uri(root)
    shown, path = redacted(uri), sqlite_path(uri)
    if not settings.tracking.enabled:
        return Finding("MLflow", f"off (tracking.enabled = false); {shown} is not asked")
    if path is not None and not os.path.lexists(path):
        return Finding("MLflow", f"{shown} will be made by the first run")
    try:
        probe(uri)
    except OSError as error:
        problem = "does not answer" if path is None else f"is {one_line(error)}"
        return Finding("MLflow", f"{shown} {problem}", cure(uri, error))
    former = moved_from(path) if path is not None else None
    if former is not None:
        return Finding("MLflow", f"{shown} was moved or copied from {former}, where it looks for its artifacts", SYNC)
    if tracking.initialise(uri):
        return Finding("MLflow", f"{shown} answers")
    return Finding("MLflow", f"{shown} does not answer", cure(uri))


def dvc(root: Path) -> Finding:
    """Check that the DVC remote, if one is configured, can be reached."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote")
        if name is None:
            return Finding("DVC", "no remote: data and results stay on this machine (`dvc remote add -d` names one)")
        url = repo.config["remote"].get(name, {}).get("url", "no URL")
        try:
            remote = repo.cloud.get_remote(name)
            there = remote.fs.exists(remote.path)
        except Exception as error:  # each kind of remote fails in its own way
            return Finding("DVC", f"remote {name} at {url}: {one_line(error)}", f"dvc remote modify {name} url <url>")
    if not there:
        return Finding("DVC", f"remote {name}: nothing at {url}, not reachable or never pushed to", "dvc push")
    return Finding("DVC", f"remote {name} at {url} answers")


def data(settings: Config, root: Path) -> Finding:
    """Check that the data of the profile are prepared and intact, noisy labels included."""
    from pipeline.data import noisy_folder, prepared_folder
    from pipeline.data.arrays import load
    from pipeline.data.shards import has_image_shards, open_image_shards

    dataset, levels = settings.data.name, settings.data.noise_levels
    try:
        if has_image_shards(prepared_folder(root / "data", dataset)):
            found = open_image_shards(prepared_folder(root / "data", dataset))
            return Finding("data", f"{dataset}: {len(found.train)} training and {len(found.test)} test images packed")
        arrays = load(prepared_folder(root / "data", dataset))
    except UserError as error:
        return Finding("data", one_line(error), f"dvc repro prepare@{dataset}")
    for level in levels:
        try:
            load(prepared_folder(root / "data", dataset), noisy_folder(root / "data", dataset, level))
        except UserError as error:
            return Finding("data", one_line(error), f"dvc repro corrupt@{dataset}-{level}")
    noisy = f", noisy labels at {', '.join(map(str, levels))} %" if levels else ""
    return Finding(
        "data",
        f"{dataset}: {len(arrays.train_images)} training and {len(arrays.test_images)} test images intact{noisy}",
    )


def object_store(settings: Config) -> Finding:
    """Check that a run store behind a URL can be written and read; the error says why not."""
    store, name = ObjectStore(settings.store), f".doctor-{os.getpid()}"
    store.write(name, b"seen")
    store.read(name)
    store.delete(name)
    return Finding("store", f"{settings.store} answers")


def disk(settings: Config, root: Path) -> Finding:
    """Check that the disk of the store has room for weights and checkpoints of all runs of the profile."""
    store = store_folder(settings.store, root)
    place = next(path for path in (store, *store.parents) if path.exists())
    free, need = shutil.disk_usage(place).free, room(settings, root)
    line = f"{free / GIB:.1f} GiB free for {store}; the runs of the profile take up to {need / GIB:.1f} GiB"
    cure = f"python -m pipeline compose {settings.profile} store=/path/with/room"
    return Finding("disk", line, "" if free > need else cure)


def room(settings: Config, root: Path) -> int:
    """Return the bytes that the runs of a profile take at most: weights, and checkpoints while they train."""
    from models import find_network
    from pipeline.data import DATASETS, ImageFolderSet
    from pipeline.runs.spec import NetworkSpec
    from pipeline.settings.counts import NetworkCounts
    from pipeline.settings.planning import own_options

    dataset, known = DATASETS[settings.data.name], NetworkCounts(root / "data")
    if isinstance(dataset, ImageFolderSet):
        classes, size = dataset.class_count, None
    else:
        classes, size = len(dataset.classes), dataset.image_shape[0]
    parameters = sum(
        known.of(
            NetworkSpec(experiment.network, classes, own_options(experiment)),
            size or find_network(experiment.network).image_size,
        ).parameters
        for experiment in settings.experiments.values()
    )
    return BYTES * parameters * len(settings.seeds) * (1 + 2 * settings.checkpoints.keep)
