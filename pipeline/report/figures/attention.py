"""The attention masks that a run left for eight fixed test images, drawn as in Figure 1 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report.evidence import Evidence
from pipeline.report.figures.style import NEUTRAL, ReportFigure, png
from pipeline.report.records import Run
from pipeline.runs import arrays as run_arrays
from pipeline.runs.reading import DamagedError

_MOST_ROWS = 5
_TITLES = {
    "channel_before": "feature before",
    "channel_mask": "stage {stage}, module {module}\nmask over image",
    "channel_after": "feature after",
}
_WIDTHS = (1, 0.12, 1, 1, 1, 0.12, 1, 1, 1)
_FIRST_COLUMNS = (2, 6)


def attention(masks: Masks | None) -> ReportFigure | None:
    """Rows of images: input, then feature before, mask and feature after at the first and the last module."""
    if masks is None:
        return None
    places = (min(masks.modules), max(masks.modules))
    rows = min(_MOST_ROWS, len(masks.images))
    figure = Figure(figsize=(9.2, 1.22 * rows + 0.45), layout="constrained", facecolor="none")
    grid = figure.add_gridspec(rows, len(_WIDTHS), width_ratios=_WIDTHS, wspace=0.03, hspace=0.03)
    for row in range(rows):
        inputs = _bare(figure.add_subplot(grid[row, 0]))
        inputs.imshow(masks.images[row])
        if row == 0:
            _title(inputs, "input")
        for place, first in zip(places, _FIRST_COLUMNS, strict=True):
            for column, part in enumerate(_TITLES, start=first):
                axis = _bare(figure.add_subplot(grid[row, column]))
                _draw(axis, masks, place, part, row)
                if row == 0:
                    _title(axis, _TITLES[part].format(stage=place[0], module=place[1]))
    return ReportFigure(
        "attention-masks",
        "Attention masks over input images",
        f"{masks.run.name} on {masks.run.dataset}: for each image the channel whose mask varies most over positions, "
        "at the first module and at the last one. Each map is scaled to its own range: yellow is high, blue is low. "
        "The mask lies over the image in grey.",
        "png",
        png(figure),
        wide=True,
    )


def _bare(axis: Axes) -> Axes:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    return axis


def _title(axis: Axes, text: str) -> None:
    axis.set_title(text, fontsize=8.5, color=NEUTRAL, fontweight="normal", loc="center", pad=4)


def _draw(axis: Axes, masks: Masks, place: tuple[int, int], part: str, row: int) -> None:
    values = masks.modules[place][part][row]
    if part != "channel_mask":
        axis.imshow(values, cmap="cividis")
        return
    grey = masks.images[row].mean(axis=-1)
    extent = (0, grey.shape[1], grey.shape[0], 0)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    axis.imshow(values, cmap="cividis", alpha=0.65, interpolation="bilinear", extent=extent)


PREFERRED = ("attention92", "attention56", "attention128", "attention164")
"""Whose masks are shown: the network of the paper's comparisons where it has run."""

PARTS = ("channel_before", "channel_mask", "channel_after")


@dataclass(frozen=True)
class Masks:
    """Images uint8 [n, H, W, 3] of a run, and by (stage, module) its feature before, mask and after [n, h, w]."""

    run: Run
    images: NDArray[np.uint8]
    modules: Mapping[tuple[int, int], Mapping[str, NDArray[np.float32]]]


def find_masks(evidence: Evidence) -> Masks | None:
    """Masks of the first attention network that has readable and finite ones."""
    attention = [name for name in evidence.experiments if name.startswith("attention")]
    for experiment in dict.fromkeys((*PREFERRED, *attention)):
        for seed in evidence.seeds(experiment):
            run = evidence.runs.get(f"{experiment}-s{seed}")
            if run is not None and (masks := _read_masks(run)):
                return masks
    return None


def _read_masks(run: Run) -> Masks | None:
    """The masks of a run; None where they are damaged, which is a note of the run, or not finite."""
    try:
        read = run_arrays.Masks.read(run.folder)
    except DamagedError:
        return None
    places = sorted({(int(found[1]), int(found[2])) for found in map(run_arrays.MAP.fullmatch, read.maps) if found})
    modules = {
        (stage, module): {part: read.maps[f"s{stage}m{module}_{part}"].astype(np.float32) for part in PARTS}
        for stage, module in places
        if all(f"s{stage}m{module}_{part}" in read.maps for part in PARTS)
    }
    drawable = all(np.isfinite(part).all() for parts in modules.values() for part in parts.values())
    return Masks(run, read.images, modules) if modules and drawable else None
