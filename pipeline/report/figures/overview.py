"""Figures of the runs of a profile: learning curves, what has run, and how noisy labels are confused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.lines import Line2D

from pipeline.report.evidence import Evidence
from pipeline.report.figures.style import (
    BLUE,
    COLOURS,
    DASHES,
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
from pipeline.report.records import Problem, Run
from pipeline.settings.paper import load_paper
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json

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
