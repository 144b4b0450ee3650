"""Which folder is a project, and where it keeps what outlives an experiment of DVC."""

from __future__ import annotations

import os
from pathlib import Path

UI_PORT = 5000  # of the MLflow UI, unless another one is named


def is_project(folder: Path) -> bool:
    """Return whether a folder is a checkout of this project."""
    return (folder / "dvc.yaml").is_file() and (folder / "conf" / "profile").is_dir()


def home(root: Path) -> Path:
    """Return the folder of the run store and of MLflow's database: the project folder.

    `dvc exp run --temp` and `--queue` work in a temporary copy of the project `root`, which they delete; runs and
    MLflow's database then belong to the project that the experiment was started in.
    """
    return Path(os.environ["DVC_ROOT"]) if {"DVC_EXP_NAME", "DVC_ROOT"} <= os.environ.keys() else root
