"""The confusion matrices of the noisy labels, from the manifests that lie beside them."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.evidence import Evidence
from pipeline.report.records import Problem
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json

Matrix = list[list[int]]


def noise_matrices(evidence: Evidence, data: Path | None) -> tuple[dict[int, Matrix], list[Problem]]:
    """Realised matrix (row = clean class) by noise level, for the noisy labels below `data` that the plan trains on."""
    matrices: dict[int, Matrix] = {}
    problems = []
    used = {
        (run.dataset, run.noise): run.config["data"].get("noise_checksum")
        for run in evidence.plan.runs.values()
        if run.noise
    }
    for (dataset, level), checksum in sorted(used.items()):
        path = Path(data) / "noisy" / dataset / str(level) / "manifest.json" if data is not None else None
        if path is None or not path.is_file():
            continue
        try:
            matrices[level] = _matrix(path, checksum)
        except (UserError, OSError, RecursionError, ValueError, KeyError, TypeError) as error:
            problems.append(Problem(f"noisy/{dataset}/{level}/manifest.json", f"not drawn: {error}"))
    return matrices, problems


def _matrix(path: Path, checksum: str | None) -> Matrix:
    manifest = read_json(path)
    if checksum is not None and manifest["checksum"] != checksum:
        raise ValueError("these are not the noisy labels of the plan")
    matrix = manifest["matrix"]
    classes = len(matrix)
    if not all(len(row) == classes and sum(row) > 0 and all(isinstance(n, int) for n in row) for row in matrix):
        raise ValueError("its matrix is not a square of counts")
    return [list(row) for row in matrix]
