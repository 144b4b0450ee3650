"""Parent runs in MLflow: the tables of the paper, searches and reports, in one experiment a profile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.tracking.database import EXPERIMENTS
from pipeline.tracking.describe import (
    ERROR,
    KIND,
    PARENT,
    TABLES,
    VIEW,
    VIEW_KEY,
    Described,
    experiment_note,
    origin_tags,
    report_note,
    search_note,
    table_name,
    table_note,
)
from pipeline.tracking.store import artifact_root, exclusive, tolerate_errors
from pipeline.utils.names import checked_plain_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Kind = Literal["table", "search", "report"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

NOTE = "mlflow.note.content"
NAME = "name"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
BEST = "best.run"
_GROUPS: dict[tuple[str, str, str, str], str] = {}


@tolerate_errors
def open_parent(client: MlflowClient, kind: Kind, name: str, profile: str) -> str:
    """The run that holds the runs of a table of the paper (``table1``), or the trials of a search."""
    if kind == "table":
        return table_run(client, name, profile)
    return _parent(client, kind, name, profile, f"Search {name}", search_note(name, profile))


@tolerate_errors
def log_artifacts(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log the files of a folder, e.g. the results of a search, as artifacts of a run."""
    client.log_artifacts(run_id, str(folder))


@tolerate_errors
def close_parent(client: MlflowClient, run_id: str, status: Status) -> None:
    """End the run of a search; a table's run only groups, and ends when it is made."""
    client.set_terminated(run_id, status)


def table_run(client: MlflowClient, table: str, profile: str) -> str:
    """The run that holds the runs of a table."""
    return _group(client, "table", table, profile, table_name(table), table_note(table, profile))


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


@tolerate_errors
def log_report(client: MlflowClient, profile: str, report_folder: Path) -> str:
    """Log the report of a profile, tables and figures, as artifacts of the profile's report run; its id."""
    run_id = report_run(client, profile)
    set_tags(client, run_id, origin_tags(None))
    client.log_artifacts(run_id, str(report_folder))
    client.set_terminated(run_id)
    return run_id


def log_best_errors(client: MlflowClient, runs: Iterable[Described]) -> None:
    """Log, for each table or search that some of these runs belong to, the lowest error of its finished runs."""
    searches: dict[tuple[str, str], None] = {}
    tables: dict[tuple[str, str], None] = {}
    for run in runs:
        if run.provenance is None or run.provenance.status != "finished":
            continue
        profile = run.provenance.profile
        if run.search:
            searches[run.search, profile] = None
        tables.update(dict.fromkeys((cell.table, profile) for cell in run.cells))
    for search, profile in searches:
        _log_best_error(client, search, profile, f"tags.`{PARENT}` = '{search}'")
    for table, profile in tables:
        condition = f"tags.`{KIND}` = 'run' and tags.`{TABLES}` LIKE '%{table}%'"
        _log_best_error(client, table_run(client, table, profile), profile, condition)


def _log_best_error(client: MlflowClient, parent: str, profile: str, condition: str) -> None:
    found = client.search_runs(
        [experiment_id(client, profile)],
        f"{condition} and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=[f"metrics.`{ERROR}` ASC"],
    )
    best = found[0].data.metrics.get(ERROR) if found else None
    if best is not None and client.get_run(parent).data.metrics.get(ERROR) != best:
        client.log_metric(parent, ERROR, best)
        client.set_tag(parent, BEST, found[0].info.run_name)


def experiment_id(client: MlflowClient, profile: str) -> str:
    """The MLflow experiment of a profile, ``residual-attention/<profile>``, made when it is not there."""
    from mlflow.exceptions import MlflowException

    name = f"{EXPERIMENTS}{checked_plain_name(profile, 'profile')}"
    found = client.get_experiment_by_name(name)
    if found is None:
        root = artifact_root(client.tracking_uri)
        with suppress(MlflowException):  # another process was faster
            client.create_experiment(name, f"{root}/{profile}" if root else None)
        found = client.get_experiment_by_name(name)
        if found is None:
            raise MlflowException(f"experiment {name} was not created")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for key, value in experiment_tags(profile, found.experiment_id).items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def experiment_tags(profile: str, experiment: str) -> dict[str, str]:
    """Tags of the MLflow experiment of a profile: its kind (training, not chats), description, and default columns."""
    return {
        "mlflow.experimentKind": "custom_model_development",
        NOTE: experiment_note(profile, experiment),
        VIEW_TAG: json.dumps(VIEW),
    }


@tolerate_errors
def experiments(client: MlflowClient) -> dict[str, str]:
    """The experiments of this project in a store: profile and id."""
    found = client.search_experiments(filter_string=f"name LIKE '{EXPERIMENTS}%'")
    return {experiment.name.removeprefix(EXPERIMENTS): experiment.experiment_id for experiment in found}


def find(client: MlflowClient, experiment: str, key: Mapping[str, str]) -> Run | None:
    """Return the oldest run with these tags; runs that someone deleted are not found."""
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
