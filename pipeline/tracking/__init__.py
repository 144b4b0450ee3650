"""MLflow as a view of the run folders: the only package that imports it, and only when something is logged.

The files of the runs are the truth. Whatever is missing here, because MLflow was off, slow or dead, is added from
them by `sync`; nothing in here ever stops a training run.

``store``     which store, and how to survive one that does not answer
``describe``  what is told about a run, from its files
``paper``     which cells of the paper's tables a run fills
``points``    the curves of a run, each point once
``runs``      open, close and nest runs; the report
``live``      curves while they grow, followed by the driver
``system``    what the machines do meanwhile, for the workers
``models``    logged and registered models
``sync``      everything again, from files
"""

from __future__ import annotations

from pipeline.tracking.live import Follower
from pipeline.tracking.models import log_model
from pipeline.tracking.runs import close_parent, close_run, find_run, log_report, open_parent, open_run
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
    "log_model",
    "log_report",
    "open_parent",
    "open_run",
    "sync",
    "tracking_uri",
]
