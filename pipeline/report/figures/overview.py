"""What is done and what is not, and how the labels were made noisy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.lines import Line2D

from pipeline.report.evidence import Evidence
from pipeline.report.figures.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RUST,
    SKY,
    ReportFigure,
    legend_below,
    panels,
    svg,
)

STATUSES = {
    "done": (BLUE, "", "finished"),
    "marked": (SKY, "$†$", "finished, by older code or on other data"),
    "unfinished": (ORANGE, "$/$", "unfinished"),
    "damaged": (RUST, "x", "damaged or foreign"),
    "pending": (GRID, "", "pending"),
}
_MOST_SEEDS_SHOWN, _LEAST_COLUMNS = 60, 8


def progress(evidence: Evidence) -> ReportFigure | None:
    """A heat map of experiments by seeds."""
    experiments = evidence.experiments
    planned = sorted({seed for name in experiments for seed in evidence.seeds(name)})
    if not planned:
        return None
    seeds = planned[:_MOST_SEEDS_SHOWN]
    hidden = f" Only the first {len(seeds)} seeds are drawn." if len(seeds) < len(planned) else ""
    order = list(STATUSES)
    codes = np.full((len(experiments), len(seeds)), np.nan)
    for row, name in enumerate(experiments):
        for column, seed in enumerate(seeds):
            if seed in evidence.seeds(name):
                codes[row, column] = order.index(evidence.status(name, seed))
    width = min(9.2, 2.6 + 0.32 * len(seeds))
    figure, (axis,) = panels(1, 1, max(width, 5.6), 0.21 * len(experiments) + 1.2)
    colours = ListedColormap([STATUSES[name][0] for name in order])
    axis.pcolormesh(codes, cmap=colours, vmin=-0.5, vmax=len(order) - 0.5, edgecolors=PAPER, linewidth=1.5)
    for code, name in enumerate(order):
        rows, columns = np.nonzero(codes == code)
        if STATUSES[name][1] and len(rows):
            axis.scatter(columns + 0.5, rows + 0.5, marker=STATUSES[name][1], color=INK, s=28, linewidth=1.2)
    axis.set_yticks(np.arange(len(experiments)) + 0.5, experiments)
    step = 1 + len(seeds) // 20
    axis.set_xticks(np.arange(0, len(seeds), step) + 0.5, [str(seed) for seed in seeds[::step]])
    axis.set_xlabel("seed", loc="left")
    axis.set_xlim(0, max(len(seeds), _LEAST_COLUMNS))  # a few seeds do not fill the width
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    present = [name for code, name in enumerate(order) if (codes == code).any()]
    legend_below(figure, [_entry(name) for name in present], 2)
    return ReportFigure(
        "progress",
        "What is done and what is pending",
        f"{len(evidence.runs)} of {len(evidence.plan.runs)} planned runs are finished.{hidden}",
        "svg",
        svg(figure, "progress"),
    )


def _entry(status: str) -> Line2D:
    colour, _, label = STATUSES[status]
    return Line2D([], [], linestyle="", marker="s", markersize=9, color=colour, markeredgecolor=MUTED, label=label)


def confusion(matrices: Mapping[int, Sequence[Sequence[int]]], dataset: str) -> ReportFigure | None:
    """Clean against noisy labels, one panel for each noise level: share of each clean class."""
    if not matrices:
        return None
    figure, axes = panels(1, len(matrices), 2.35 * len(matrices) + 0.7, 2.9, sharey=True)
    for axis, (level, matrix) in zip(axes, sorted(matrices.items()), strict=True):
        counts = np.asarray(matrix, dtype=float)
        shares = 100 * counts / counts.sum(axis=1, keepdims=True)
        image = axis.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, 0, 100), interpolation="none")
        flipped = 100 * (1 - np.trace(counts) / counts.sum())
        axis.set_title(f"{level} %: {flipped:.1f} % changed", fontsize=9)
        axis.set_xlabel("noisy label")
        axis.grid(visible=False)
        if len(counts) <= 10:
            axis.set_xticks(range(len(counts)))
            axis.set_yticks(range(len(counts)))
    axes[0].set_ylabel("clean label")
    bar = figure.colorbar(image, ax=axes, label="% of the clean class", shrink=0.8, pad=0.01)
    bar.set_ticks([0, 5, 10, 25, 50, 75, 100])
    return ReportFigure(
        "label-confusion",
        "Clean and noisy labels",
        f"The realised confusion of the {dataset} training labels at each noise level: rows are clean classes. Drawn "
        "once, shared by all seeds; test labels stay clean.",
        "svg",
        svg(figure, "label-confusion"),
        wide=True,
    )
