"""Runs in MLflow: opened or found again, nested under a table or a search, closed with all that their files hold."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.runs.records import CONFIG, HISTORY, MASKS, METRICS, RESPONSES, TIMING, WEIGHTS
from pipeline.tracking.describe import (
    KIND,
    PAGE,
    PARENT,
    Described,
    datasets,
    experiment_note,
    identity_tags,
    note,
    origin_tags,
    parameters,
    report_note,
    run_tags,
    search_note,
    table_label,
    table_note,
)
from pipeline.tracking.masks import draw_masks
from pipeline.tracking.points import add_points, contradicted, milliseconds_of, read_points
from pipeline.tracking.store import artifact_root, exclusive, survives
from pipeline.utils.files import sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Kind = Literal["table", "search", "report"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

NOTE = "mlflow.note.content"
NAME = "name"
ARTIFACTS_TAG = "artifacts.sha256"
FILES = (CONFIG, METRICS, RESPONSES, HISTORY, TIMING, WEIGHTS)
ENTITIES = 100  # parameters that one call may hold
_GROUPS: dict[tuple[str, str, str, str], str] = {}


@survives
def open_run(client: MlflowClient, folder: Path, *, profile: str, parent: str | None = None) -> str | None:
    """Create the run of a run folder, or find it again by its identity; its id, None where MLflow fails.

    `parent` is the run of a search; without it a run belongs to the first table of the paper that shows it.
    Nothing is written into the folder.
    """
    return ensure_run(client, Described.read(folder, parent), profile)[0]


@survives
def find_run(client: MlflowClient, folder: Path) -> str | None:
    """The run of a run folder, found by its identity; None where there is none, or MLflow fails."""
    run = Described.read(folder)
    if run.provenance is None:
        return None
    found = find(client, experiment_id(client, run.provenance.profile), identity_tags(run))
    return found.info.run_id if found else None


def ensure_run(client: MlflowClient, run: Described, profile: str) -> tuple[str, bool]:
    """The run of a run folder, set running, and whether it is new."""
    experiment = experiment_id(client, profile)
    found, run_id = find_or_create(client, experiment, run.name, identity_tags(run), _started(run))
    if found:
        client.update_run(run_id, status="RUNNING")
    if found is None or found.inputs is None or not found.inputs.dataset_inputs:
        _describe(client, run_id, experiment, run, profile)
    else:
        set_tags(client, run_id, origin_tags(run.provenance))
    return run_id, found is None


def _started(run: Described) -> int | None:
    segments = run.provenance.segments if run.provenance else ()
    return milliseconds_of(segments[0].started) if segments else None


def _describe(client: MlflowClient, run_id: str, experiment: str, run: Described, profile: str) -> None:
    """Log what a run has from its start: tags, description, parent, configuration, and its data last."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    tables = {cell.table: table_run(client, cell.table, profile) for cell in run.cells}
    runs = f"#/experiments/{experiment}/runs"
    links = {table: f"{runs}/{table_id}" for table, table_id in tables.items()}
    page = f"{runs}/{report_run(client, profile)}/artifacts/{PAGE}" if tables else ""
    parent = run.search or next(iter(tables.values()), None)
    described = run_tags(run, profile) | {NOTE: note(run, profile, links, page)} | ({PARENT: parent} if parent else {})
    set_tags(client, run_id, described)
    values = [Param(key, value) for key, value in parameters(run.config).items()]
    for start in range(0, len(values), ENTITIES):
        client.log_batch(run_id, params=values[start : start + ENTITIES])
    inputs = [
        DatasetInput(
            Dataset(data.name, data.digest, "local", json.dumps(data.source), profile=json.dumps(data.profile)),
            [InputTag("mlflow.data.context", data.context)],
        )
        for data in datasets(run.config)
    ]
    client.log_inputs(run_id, inputs)


@survives
def close_run(
    client: MlflowClient,
    run_id: str | None,
    folder: Path,
    status: Status,
    *,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str | None:
    """End a run: points that are missing, final numbers, where it ran, small files and weights; its id.

    Without a run of that id in this store (MLflow could not be reached at the start, or the run began with another
    store) one is opened first. `tags` are added, e.g. that a trial was pruned.
    """
    run = Described.read(folder, parent)
    if run_id is None or not _exists(client, run_id):
        if run.provenance is None:
            return None
        run_id, _ = ensure_run(client, run, run.provenance.profile)
    return finish_run(client, run_id, run, status, tags or {})[0]


def _exists(client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def finish_run(
    client: MlflowClient, run_id: str, run: Described, status: str, tags: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Log what is missing of a run and set its status; its id, and the number of points that were missing.

    Points cannot be changed: a run whose points are not those of its files is deleted and made anew.
    """
    points = read_points(run.folder, run.provenance)
    if run.provenance is not None and contradicted(client, run_id, points):
        client.delete_run(run_id)
        run_id, _ = ensure_run(client, run, run.provenance.profile)
    added = add_points(client, run_id, points)
    content = log_files(client, run_id, run.folder)
    set_tags(client, run_id, origin_tags(run.provenance) | {ARTIFACTS_TAG: content} | dict(tags or {}))
    if status != "RUNNING":
        segments = run.provenance.segments if run.provenance else ()
        ended = milliseconds_of(segments[-1].started) + int(1000 * segments[-1].seconds) if segments else None
        client.set_terminated(run_id, status, ended)
    return run_id, added


def log_files(client: MlflowClient, run_id: str, folder: Path) -> str:
    """Log the small files of a run, its masks as a picture and its weights, unless they are there; their checksum."""
    present = [folder / name for name in (*FILES, MASKS) if (folder / name).exists()]
    content = hashlib.sha256("".join(f"{path.name} {sha256_file(path)}\n" for path in present).encode()).hexdigest()
    if client.get_run(run_id).data.tags.get(ARTIFACTS_TAG) == content:
        return content
    with tempfile.TemporaryDirectory() as scratch:
        for path in present:
            if path.name == MASKS:
                draw_masks(folder, Path(scratch) / "masks.png")
            else:
                (Path(scratch) / path.name).symlink_to(path.resolve())
        client.log_artifacts(run_id, scratch)
    return content


@survives
def open_parent(client: MlflowClient, kind: Kind, name: str, profile: str) -> str:
    """The run that holds the runs of a table of the paper (``table1``), or the trials of a search."""
    if kind == "table":
        return table_run(client, name, profile)
    return _parent(client, kind, name, profile, f"Search {name}", search_note(name, profile))


@survives
def close_parent(client: MlflowClient, run_id: str, status: Status) -> None:
    """End the run of a search. (A table's run only groups: it ends when it is made.)"""
    client.set_terminated(run_id, status)


def table_run(client: MlflowClient, table: str, profile: str) -> str:
    """The run that holds the runs of a table."""
    return _group(client, "table", table, profile, table_label(table), table_note(table, profile))


def report_run(client: MlflowClient, profile: str) -> str:
    """The run that holds the report of a profile, empty until there is one."""
    return _group(client, "report", profile, profile, "Report", report_note(profile))


def _group(client: MlflowClient, kind: Kind, name: str, profile: str, title: str, note: str) -> str:
    """A run that trains nothing, so that it ends when it is made; looked up once by each process."""
    key = (client.tracking_uri, kind, name, profile)
    if key not in _GROUPS:
        _GROUPS[key] = _parent(client, kind, name, profile, title, note)
    return _GROUPS[key]


def _parent(client: MlflowClient, kind: Kind, name: str, profile: str, title: str, note: str) -> str:
    experiment = experiment_id(client, profile)
    key = {KIND: kind, NAME: name}
    found, run_id = find_or_create(client, experiment, title, key)
    if found is None or NOTE not in found.data.tags:
        set_tags(client, run_id, {"profile": profile, NOTE: note})
        if kind != "search":
            client.set_terminated(run_id)
    return run_id


@survives
def log_report(client: MlflowClient, profile: str, report_folder: Path) -> str:
    """Log the report of a profile, tables and figures, as artifacts of the profile's report run; its id."""
    run_id = report_run(client, profile)
    set_tags(client, run_id, origin_tags(None))
    client.log_artifacts(run_id, str(report_folder))
    client.set_terminated(run_id)
    return run_id


def experiment_id(client: MlflowClient, profile: str) -> str:
    """The MLflow experiment of a profile, ``residual-attention/<profile>``, made when it is not there."""
    from mlflow.exceptions import MlflowException

    name = f"residual-attention/{profile}"
    found = client.get_experiment_by_name(name)
    if found is None:
        root = artifact_root(client.tracking_uri)
        try:
            return client.create_experiment(name, f"{root}/{profile}" if root else None, experiment_tags(profile))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def experiment_tags(profile: str) -> dict[str, str]:
    """Tags of the MLflow experiment of a profile. The kind tells the UI to show training runs, not chats."""
    return {"mlflow.experimentKind": "custom_model_development", NOTE: experiment_note(profile)}


def find(client: MlflowClient, experiment: str, key: Mapping[str, str]) -> Run | None:
    """The oldest run with these tags. (Runs that someone deleted are not found.)"""
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in key.items())
    found = client.search_runs([experiment], condition, max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def find_or_create(
    client: MlflowClient, experiment: str, name: str, key: Mapping[str, str], started: int | None = None
) -> tuple[Run | None, str]:
    """The run with these tags if it was there, and its id; else None, and the id of a new one.

    The threads of a process, and all processes that share an SQLite database, take turns. Of two runs that processes
    of different machines make on a server at once, the older one stays.
    """
    with exclusive(client.tracking_uri):
        found = find(client, experiment, key)
        if found:
            return found, found.info.run_id
        own: str = client.create_run(experiment, started or int(1000 * time.time()), dict(key), name).info.run_id
        oldest = find(client, experiment, key)
        if oldest is None or oldest.info.run_id == own:
            return None, own
        client.delete_run(own)
        return oldest, oldest.info.run_id


def set_tags(client: MlflowClient, run_id: str, values: Mapping[str, str]) -> None:
    """Set tags in one call."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in values.items()])
