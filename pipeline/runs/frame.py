"""The runs of a project as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os.path import lexists
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.finished import read_finished, read_spec
from pipeline.runs.reading import DamagedError
from pipeline.runs.records import CONFIG, HISTORY, METRICS, Evaluation, Progress, Provenance, read_rows
from pipeline.runs.store import PUBLISHED, folders, store_folder

if TYPE_CHECKING:
    import pandas as pd

WORTH = ("finished", "running", "paused", "failed", "pending", "damaged")  # of two copies of a run the former counts
FIRST = ("status", "profile", "experiment", "seed", "test_error", "best_test_error", "iteration", "seconds", "hardware",
         "verified", "problem", "folder")  # fmt: skip


def as_frame(store: str = "runs", root: Path = Path()) -> pd.DataFrame:
    """The runs of a project, one row each, as a DataFrame indexed by ``<experiment>-s<seed>-<identity>``.

    A run that is in the store and published has one row: that of the finished copy, and of the store's if both are.

    Args:
        store: the run store, as in ``params.yaml``; of one behind a URL, the files that are on this machine are read.
        root: folder of the project.

    Returns:
        Columns: `status`, `problem` (why a run is damaged), `folder` and `verified` (whether it has checksums); its
        configuration (`experiment`, `seed`, `network.name`, `protocol.iterations`, ...); the numbers of `metrics.json`
        (errors in percent; of a run that is not finished the last evaluation); `iteration`, how far it is; and its
        provenance (`profile`, `seconds`, `segments`, `moved`; of the last segment `hardware`, `workers`, `gpus`,
        `started`, `libraries`, `commit`, `dirty`, `command`; `failure`, the reason of a failed run).
    """
    import pandas as pd

    published = sorted(path.parent for path in (root / PUBLISHED).glob(f"*/*/{CONFIG}"))
    rows = sorted(_rows([*folders(store_folder(store, root)), *published]), key=lambda row: WORTH.index(row["status"]))
    frame = pd.json_normalize(rows) if rows else pd.DataFrame(columns=["run"])
    frame = frame.drop_duplicates("run").set_index("run").sort_index()
    return frame.reindex(columns=[*FIRST, *(name for name in frame.columns if name not in FIRST)])


def _rows(found: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for folder in found:
        row: dict[str, Any] = {"run": folder.name, "folder": str(folder)}
        try:
            yield row | _read(folder)
        except DamagedError as error:
            yield row | {"status": "damaged", "problem": str(error)}


def _read(folder: Path) -> dict[str, Any]:
    """The row of a run whose files are good."""
    if lexists(folder / METRICS):
        run = read_finished(folder)
        found = {
            "status": "finished",
            "verified": run.verified,
            **run.metrics.to_json(),
            "iteration": run.metrics.iterations,
        }
        return {**found, **run.spec.to_json(), **_provenance(run.provenance)}
    spec, provenance = read_spec(folder), Provenance.read(folder)
    history, progress = read_rows(folder / HISTORY, Evaluation), Progress.read(folder)
    status = provenance.status if provenance else "pending"
    row: dict[str, Any] = {"status": "running" if status == "finished" else status}  # killed before it had metrics
    if history:
        row |= {"test_error": history[-1].test_error, "best_test_error": min(item.test_error for item in history)}
    reached = [item.iteration for item in history[-1:]] + ([progress.iteration] if progress else [])
    return {**row, "iteration": max(reached, default=0), **spec.to_json(), **_provenance(provenance)}


def _provenance(provenance: Provenance | None) -> dict[str, Any]:
    if provenance is None or not provenance.segments:
        return {}
    last = provenance.segments[-1]
    return {
        "profile": provenance.profile,
        "seconds": provenance.seconds,
        "segments": len(provenance.segments),
        "moved": provenance.was_moved,
        "hardware": last.hardware,
        "libraries": last.libraries,
        **{
            name: getattr(last, name)
            for name in ("workers", "gpus", "hostname", "started", "commit", "dirty", "command")
        },
        "mlflow_run_id": provenance.mlflow_run_id,
        "failure": provenance.error,
    }
