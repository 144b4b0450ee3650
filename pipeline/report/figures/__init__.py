"""The figures of a report."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.evidence import Evidence
from pipeline.report.figures.comparisons import cost, depth, noise, response
from pipeline.report.figures.curves import learning_curves
from pipeline.report.figures.style import Picture, drawing
from pipeline.report.tables import Counts


def draw(evidence: Evidence, counts: Counts, data: Path | None) -> list[Picture]:
    """Every figure that the runs at hand can fill."""
    with drawing():
        pictures = [
            depth(evidence),
            noise(evidence),
            cost(evidence, counts),
            response(evidence),
            learning_curves(evidence),
        ]
    return [picture for picture in pictures if picture is not None]
