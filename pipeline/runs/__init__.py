"""Runs on disk: what a run is, its files, and the store that keeps them."""

from pipeline.runs.finished import FinishedRun, read_finished
from pipeline.runs.frame import as_frame
from pipeline.runs.store import (
    PUBLISHED,
    RESULTS,
    collect,
    finished,
    folders,
    import_runs,
    locate,
    publish,
    result_folder,
    status,
    store_folder,
)

__all__ = [
    "PUBLISHED",
    "RESULTS",
    "FinishedRun",
    "as_frame",
    "collect",
    "finished",
    "folders",
    "import_runs",
    "locate",
    "publish",
    "read_finished",
    "result_folder",
    "status",
    "store_folder",
]
