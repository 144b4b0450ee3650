"""Searches in MLflow, logged again from the folders of their trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline import tracking
from pipeline.runs.records import Provenance
from pipeline.tracking.parents import Status
from pipeline.tuning.trials import SearchConfig, Trial, trials

STATUS: Mapping[str, Status] = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def trial_tags(trial: Trial) -> dict[str, str]:
    """Tags that tell a trial from its neighbours: its number, its state, and its values."""
    values = {f"tuned.{name}": str(value) for name, value in trial.values.items()}
    return {"trial.number": str(trial.number), "trial.state": trial.state} | values


def sync_search(uri: str, folder: Path) -> tuple[str | None, int]:
    """Log what MLflow does not have of the trials that ended in a search's folder, and end its run.

    The run is finished if all of its trials have ended, else killed: the search continues with `tune --resume`.

    Returns:
        the run of the search (None where MLflow fails), and the number of its trials.
    """
    config, begun = SearchConfig.read(folder), trials(folder)
    parent = tracking.open_parent(uri, "search", config.folder_name, config.profile)
    if parent is None:
        return None, 0
    synced = 0
    for progress in begun:
        provenance = Provenance.read(progress.folder)
        if provenance is None or progress.trial.state not in STATUS:
            continue
        status, tags = STATUS[progress.trial.state], trial_tags(progress.trial)
        done = tracking.close_run(uri, None, progress.folder, status, parent=parent, tags=tags)
        synced += done is not None
    ended = bool(begun) and all(progress.trial.state in STATUS for progress in begun)
    tracking.close_parent(uri, parent, "FINISHED" if ended else "KILLED")
    return parent, synced
