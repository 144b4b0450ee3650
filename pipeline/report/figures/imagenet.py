"""The ImageNet networks: error against what they cost."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.report.counts import Counts
from pipeline.report.evidence import Evidence
from pipeline.report.figures.style import BLUE, INK, MUTED, PAPER, RUST, ReportFigure, legend_below, panels, svg
from pipeline.settings.paper import UNITS, PaperRow

_AXES = {"parameters": "parameters, millions", "multiply_adds": "multiply-adds, billions"}


def imagenet_cost(evidence: Evidence, counts: Counts) -> ReportFigure | None:
    """Top-1 error of Table 7 against parameters and multiply-adds, as counted here."""
    rows = [row for row in evidence.paper.table("table7").rows if _network(row) in counts]
    if not rows:
        return None
    figure, axes = panels(1, 2, 9.2, 3.9, sharey=True)
    for axis, quantity in zip(axes, _AXES, strict=True):
        for row in rows:
            cost = counts[_network(row)].of(quantity) / UNITS[quantity]
            printed = row.cells["top1"].printed
            if printed is not None:
                _dot(axis, cost, printed, row, reading=bool(counts[_network(row)].reading), hollow=True)
            measured = evidence.sample_of("imagenet", str(row.cells["top1"].experiment), "test_error").estimate
            if measured is not None:
                _dot(axis, cost, measured.value, row, reading=False, hollow=False)
        axis.set_xlabel(_AXES[quantity])
        axis.margins(x=0.2, y=0.1)
    axes[0].set_ylabel("top-1 error %")
    legend_below(
        figure,
        [
            Line2D([], [], color=BLUE, marker="o", linestyle="", label="attention networks"),
            Line2D([], [], color=RUST, marker="s", linestyle="", label="others"),
            Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER, linestyle="", label="hollow: the paper"),
        ],
        3,
    )
    return ReportFigure(
        "error-by-cost-imagenet",
        "ImageNet: error against parameters and multiply-adds (Table 7)",
        "Hollow: the errors that the paper prints. Sizes are those of this project's networks, multiply-adds at 224x224"
        " pixels (Inception-ResNets: 299x299) also where the error is that of a larger crop. * Its structure"
        " is inferred, in whole or in part.",
        "svg",
        svg(figure, "error-by-cost-imagenet"),
        wide=True,
    )


def _network(row: PaperRow) -> str:
    return str(row.cells["parameters"].network)


def _dot(axis: Axes, x: float, y: float, row: PaperRow, *, reading: bool, hollow: bool) -> None:
    attention = row.id.startswith("attention")
    colour, marker = (BLUE, "o") if attention else (RUST, "s")
    axis.plot([x], [y], color=colour, marker=marker, markerfacecolor=PAPER if hollow else colour, linestyle="")
    if hollow:
        name = row.label.partition(" (")[0] + ("*" if reading else "")
        place = (5, -10 if attention else 4)  # two networks with the same error lie side by side
        axis.annotate(name, (x, y), xytext=place, textcoords="offset points", fontsize=7.5, color=MUTED)
