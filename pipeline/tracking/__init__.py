"""MLflow as a view of the run folders: the only package that imports it, and only when something is logged.

The files of the runs are the truth. Whatever is missing here, because MLflow was off, slow or dead, is added from
them by `sync`; nothing in here ever stops a training run.

``store``      which store, and calls that tolerate its errors
``database``   the SQLite database: checks, and repair after a move
``describe``   what is logged about a run, read from its files
``points``     the curves of a run, each point once
``artifacts``  the files of a run
``parents``    experiments, tables, searches and reports
``runs``       runs opened and closed
``live``       curves while they grow, followed by the driver
``system``     what the machines do meanwhile, for the workers
``models``     logged and registered models
``sync``       everything again, from files
``ui``         the MLflow UI
"""

from __future__ import annotations

from pipeline.tracking.live import Follower
from pipeline.tracking.models import log_model, log_models
from pipeline.tracking.parents import close_parent, log_artifacts, log_report, open_parent
from pipeline.tracking.runs import close_run, find_run, open_run
from pipeline.tracking.store import initialise, tracking_uri
from pipeline.tracking.sync import SyncResult, sync
from pipeline.tracking.system import SystemLog

__all__ = [
    "Follower",
    "SyncResult",
    "SystemLog",
    "close_parent",
    "close_run",
    "find_run",
    "initialise",
    "log_artifacts",
    "log_model",
    "log_models",
    "log_report",
    "open_parent",
    "open_run",
    "sync",
    "tracking_uri",
]
