"""Learning curves: test and training error over the iterations, with the drops of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.report.evidence import Evidence
from pipeline.report.figures.style import COLOURS, DASHES, INK, MUTED, PAPER, ReportFigure, legend_below, panels, svg
from pipeline.report.records import Run
from pipeline.settings.paper import load_paper


def _on_noise(column: str) -> tuple[str, ...]:
    return tuple(str(cell.experiment) for cell in load_paper().table("table5").by_level(column).values())


GROUPS = {
    "Activation of the mask": ("attention56", "attention56-channel", "attention56-spatial"),
    "Structure of the mask": ("attention56", "attention56-local"),
    "56 layers": ("attention56", "attention56-nal"),
    "92 layers": ("attention92", "attention92-nal"),
    "128 layers": ("attention128", "attention128-nal"),
    "164 layers": ("attention164", "attention164-nal", "resnet164"),
    "Attention-92 on noisy labels": _on_noise("attention92"),
    "ResNet-164 on noisy labels": _on_noise("resnet164"),
    "Large networks": ("attention236", "attention452", "resnet1001", "wrn16_8", "wrn28_10"),
}
_COLUMNS = 3


def learning_curves(evidence: Evidence) -> ReportFigure | None:
    """One panel for each group of experiments that is compared in a table; None while nothing ran."""
    groups = {
        title: [(name, runs) for name in names if (runs := evidence.sample(name, "test_error").runs)]
        for title, names in GROUPS.items()
    }
    drawn = {title: members for title, members in groups.items() if members}
    named = {name for members in drawn.values() for name, _ in members}
    rest = [(name, evidence.sample(name, "test_error").runs) for name in evidence.experiments if name not in named]
    for start in range(0, len(left := [member for member in rest if member[1]]), len(COLOURS)):
        drawn[f"Others {start // len(COLOURS) + 1}"] = left[start : start + len(COLOURS)]
    if not drawn:
        return None
    rows = ceil(len(drawn) / _COLUMNS)
    figure, axes = panels(rows, min(_COLUMNS, len(drawn)), 9.6, 2.6 * rows + 0.4, sharey=False)
    for axis, (title, members) in zip(axes, drawn.items(), strict=False):
        _panel(axis, title, members)
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    handles = [
        Line2D([], [], color=INK, linewidth=1.8, label="test error"),
        Line2D([], [], color=INK, linewidth=0.8, alpha=0.6, label="training error (augmented, as trained)"),
        Line2D([], [], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), label="learning rate divided by 10"),
    ]
    legend_below(figure, handles, 3)
    return ReportFigure(
        "learning-curves",
        "Learning curves",
        "Error in percent over the iterations. Lines are means over the seeds, bands reach from the best to the worst "
        "seed. On noisy labels the training error is counted against the noisy labels.",
        "svg",
        svg(figure, "learning-curves"),
        wide=True,
    )


def _panel(axis: Axes, title: str, members: Sequence[tuple[str, Sequence[Run]]]) -> None:
    for index, (name, runs) in enumerate(members):
        colour, dash = COLOURS[index], DASHES[index]
        iterations, test = _curves(runs, "test_error")
        axis.plot(iterations, test.mean(axis=0), color=colour, linestyle=dash, linewidth=1.8, label=name)
        if len(runs) > 1:
            axis.fill_between(iterations, test.min(axis=0), test.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        iterations, train = _curves(runs, "train_error")
        axis.plot(iterations, train.mean(axis=0), color=colour, linestyle=dash, linewidth=0.8, alpha=0.6)
    for drop in members[0][1][0].config["protocol"]["milestones"]:
        axis.axvline(drop, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    axis.set_title(title)
    highest = max(max(run.history["test_error"]) for _, runs in members for run in runs)
    axis.set_ylim(0, max(highest, 1) * (1.1 + 0.1 * len(members)))  # room for the names above the curves
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= 100])
    axis.set_xlim(left=0)
    axis.margins(x=0)
    axis.set_xlabel("iteration")
    axis.set_ylabel("error %")
    legend = axis.legend(
        fontsize=7.5, loc="upper right", handlelength=2.4, frameon=True, borderpad=0.3, borderaxespad=0
    )
    legend.get_frame().set(facecolor=PAPER, edgecolor="none", alpha=0.85)  # lines pass behind the names


def _curves(runs: Sequence[Run], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations [n] and the column's values [runs, n], at the iterations that all runs share."""
    shared = sorted(set.intersection(*(set(run.history["iteration"]) for run in runs)))
    rows = []
    for run in runs:
        at = dict(zip(run.history["iteration"], run.history[column], strict=True))
        rows.append([at[iteration] for iteration in shared])
    return np.asarray(shared), np.asarray(rows)
