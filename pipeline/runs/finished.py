"""A finished run as a whole: read, and checked before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

from pipeline.runs.arrays import Masks, read_mistakes
from pipeline.runs.reading import DamagedError, read_object, verify
from pipeline.runs.records import (
    CONFIG,
    HISTORY,
    METRICS,
    TIMING,
    WEIGHTS,
    Evaluation,
    Metrics,
    Provenance,
    Responses,
    Timing,
    read_rows,
)
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import one_line
from pipeline.utils.files import sha256_file


@dataclass(frozen=True)
class FinishedRun:
    """The content of a finished run's folder.

    Attributes:
        provenance: None for a copy without one, as in ``results/``.
        verified: whether the run has checksums; those that were finished before there were any have none.
    """

    folder: Path
    spec: RunSpec
    metrics: Metrics
    history: tuple[Evaluation, ...]
    provenance: Provenance | None
    verified: bool


def read_spec(folder: Path) -> RunSpec:
    """The configuration of a run's folder. Raises DamagedError if it is damaged."""
    return RunSpec.from_json(read_object(folder / CONFIG), folder / CONFIG)


def read_finished(folder: Path) -> FinishedRun:
    """Read a finished run whose files all are what its checksums say, can be read, and agree with each other.

    Raises:
        DamagedError: for the first file of which this is not true.
    """
    verified = verify(folder, may_lack=WEIGHTS)
    spec, metrics = read_spec(folder), Metrics.read(folder)
    history = read_rows(folder / HISTORY, Evaluation)
    metrics.check(folder, history, spec.protocol.iterations, spec.data.test_images)
    Responses.read(folder)
    read_rows(folder / TIMING, Timing)
    Masks.read(folder)
    wrong = read_mistakes(folder)
    if wrong is not None and len(wrong) != metrics.test_images:
        raise DamagedError(folder, f"has the mistakes on {len(wrong)} of {metrics.test_images} test images")
    if not verified and lexists(folder / WEIGHTS):
        _check_weights(folder / WEIGHTS, metrics)
    provenance = Provenance.read(folder)
    if provenance is not None:
        provenance.check_finished(folder)
    return FinishedRun(folder, spec, metrics, tuple(history), provenance, verified)


def _check_weights(path: Path, metrics: Metrics) -> None:
    """Refuse weights that are not those of the metrics."""
    from models.weights import network_sha256

    try:
        if sha256_file(path) == metrics.weights_sha256:  # a file without class names and normalisation
            return
        found = network_sha256(path)
    except (OSError, ValueError) as error:
        raise DamagedError(path, one_line(error)) from None
    if found != metrics.weights_sha256:
        raise DamagedError(path, f"checksum {found} is not {metrics.weights_sha256}, the one in {METRICS}")
