"""The figures of a report."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.report.counts import CountsByNetwork
from pipeline.report.evidence import Evidence
from pipeline.report.figures.attention import Masks, attention
from pipeline.report.figures.comparisons import cost, depth, imagenet_cost, noise, response
from pipeline.report.figures.overview import Matrix, confusion, learning_curves, progress
from pipeline.report.figures.style import ReportFigure, drawing

AWAITED = {
    "arl-nal-by-depth": "residual against naive attention learning (runs of Table 3)",
    "error-by-noise": "error against label noise (runs of Table 5)",
    "attention-masks": "attention masks (a run of an attention network)",
    "response-by-stage": "mean response by stage (runs of Figure 4)",
    "learning-curves": "learning curves (any run)",
    "error-by-cost": "error against parameters and multiply-adds (a run without label noise)",
    "error-by-cost-imagenet": "error of the ImageNet networks against their size (the counts)",
    "label-confusion": "clean and noisy labels (the noisy labels under data/)",
}
"""What each figure shows, and in brackets what it cannot be drawn without."""


def draw(
    evidence: Evidence, counts: CountsByNetwork, masks: Masks | None, matrices: Mapping[int, Matrix]
) -> list[ReportFigure]:
    """Every figure that the runs at hand can fill."""
    cifar = evidence.has_cifar_networks
    with drawing():
        figures = [
            depth(evidence) if cifar and evidence.datasets != ["cifar100"] else None,
            noise(evidence) if cifar else None,
            attention(masks),
            response(evidence) if cifar else None,
            progress(evidence),
            learning_curves(evidence),
            cost(evidence, counts) if cifar else None,
            imagenet_cost(evidence, counts),
            confusion(matrices, " and ".join(evidence.datasets)),
        ]
    return [figure for figure in figures if figure is not None]
