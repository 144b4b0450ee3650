"""Runs in MLflow: opened or found again, nested under a table or a search, closed with all that their files hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.artifacts import artifacts_tag, has_files, log_files
from pipeline.tracking.describe import (
    PAGE,
    PARENT,
    Described,
    constants,
    datasets,
    identity_tags,
    note,
    origin_tags,
    parameters,
    run_tags,
)
from pipeline.tracking.parents import (
    NOTE,
    Status,
    experiment_id,
    find,
    find_or_create,
    log_best_errors,
    report_run,
    set_tags,
    table_run,
)
from pipeline.tracking.points import add_points, contradicted, milliseconds_of, missing_points, read_points
from pipeline.tracking.store import tolerate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ENTITIES = 100  # parameters that one call may hold
FORMER = "test_error"  # a metric that runs had before their metrics were named by epoch; such a run is logged anew


@tolerate_errors
def open_run(client: MlflowClient, folder: Path, *, profile: str, parent: str | None = None) -> str | None:
    """Create the run of a run folder, or find it again by its identity; its id, None where MLflow fails.

    Nothing is written into the folder.

    Args:
        parent: id of the run of a search; without it a run belongs to the first table of the paper that shows it.
    """
    return ensure_run(client, Described.read(folder, parent), profile)[0]


@tolerate_errors
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
    if found and FORMER in found.data.metrics:
        client.delete_run(run_id)
        found, run_id = find_or_create(client, experiment, run.name, identity_tags(run), _started(run))
    if found:
        client.update_run(run_id, status="RUNNING")
    if found is None or not _has_data(found):
        _describe(client, run_id, experiment, run, profile)
    else:
        set_tags(client, run_id, origin_tags(run.provenance))
    return run_id, found is None


def _started(run: Described) -> int | None:
    segments = run.provenance.segments if run.provenance else ()
    return milliseconds_of(segments[0].started) if segments else None


def _describe(client: MlflowClient, run_id: str, experiment: str, run: Described, profile: str) -> None:
    """Log what a run has from its start: tags, description, parent, configuration, and its data last."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tables = {cell.table: table_run(client, cell.table, profile) for cell in run.cells}
    runs = f"#/experiments/{experiment}/runs"
    links = {table: f"{runs}/{table_id}" for table, table_id in tables.items()}
    page = f"{runs}/{report_run(client, profile)}/artifacts/{PAGE}" if tables else ""
    parent = run.search or next(iter(tables.values()), None)
    described = run_tags(run, profile) | {NOTE: note(run, profile, links, page)} | ({PARENT: parent} if parent else {})
    set_tags(client, run_id, described)
    log_parameters(client, run_id, parameters(run.config))
    inputs = [
        DatasetInput(
            Dataset(data.name, data.digest, "local", json.dumps(data.source), profile=json.dumps(data.profile)),
            [InputTag("mlflow.data.context", data.context)],
        )
        for data in datasets(run.config)
    ]
    client.log_inputs(run_id, inputs)


@tolerate_errors
def close_run(
    client: MlflowClient,
    run_id: str | None,
    folder: Path,
    status: Status,
    *,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str | None:
    """End a run with all that its files hold (points that are missing, constants, files, weights); return its id.

    Without a run of that id in this store (MLflow could not be reached at the start, or the run began with another
    store) one is opened first.

    Args:
        tags: are added, e.g. that a trial was pruned.
    """
    run = Described.read(folder, parent)
    if run_id is None or not _exists(client, run_id):
        if run.provenance is None:
            return None
        run_id, _ = ensure_run(client, run, run.provenance.profile)
    run_id, _ = finish_run(client, run_id, run, status, tags or {})
    log_best_errors(client, [run])
    return run_id


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
    """Log what is missing of a run and set its status; return its id and the number of points that were missing.

    The run ends as many seconds after its start as it was trained, so that MLflow shows the duration of training.
    Points cannot be changed: a run whose points are not those of its files is deleted and made anew.
    """
    points = read_points(run.folder, run.provenance)
    if run.provenance is not None and contradicted(client, run_id, points):
        client.delete_run(run_id)
        run_id, _ = ensure_run(client, run, run.provenance.profile)
    added = add_points(client, run_id, points)
    content = log_files(client, run_id, run.folder)
    values, found = constants(run.folder)
    log_parameters(client, run_id, values)
    set_tags(client, run_id, origin_tags(run.provenance) | content | found | dict(tags or {}))
    if status != "RUNNING":
        segments = run.provenance.segments if run.provenance else ()
        begun = client.get_run(run_id).info.start_time  # maybe long before the first segment: a run waits for its turn
        client.set_terminated(run_id, status, begun + int(1000 * sum(segment.seconds for segment in segments)))
    return run_id, added


def is_complete(client: MlflowClient, run: Described, status: str) -> bool:
    """Whether MLflow has all that the files of a run hold, under that status, so that nothing is left to log."""
    assert run.provenance is not None
    found = find(client, experiment_id(client, run.provenance.profile), identity_tags(run))
    if found is None or found.info.status != status or FORMER in found.data.metrics or not _has_data(found):
        return False
    run_id, points = found.info.run_id, read_points(run.folder, run.provenance)
    return (
        origin_tags(run.provenance).items() <= found.data.tags.items()
        and has_files(client, found, run.folder, artifacts_tag(run.folder))
        and not contradicted(client, run_id, points)
        and not missing_points(client, run_id, points)
    )


def _has_data(run: Run) -> bool:
    """Whether the data of a run is logged, which is the last thing logged of its start."""
    return run.inputs is not None and bool(run.inputs.dataset_inputs)


def log_parameters(client: MlflowClient, run_id: str, values: Mapping[str, str]) -> None:
    """Log parameters, which a run keeps for good, in as few calls as MLflow allows."""
    from mlflow.entities import Param

    found = [Param(key, value) for key, value in values.items()]
    for start in range(0, len(found), ENTITIES):
        client.log_batch(run_id, params=found[start : start + ENTITIES])
