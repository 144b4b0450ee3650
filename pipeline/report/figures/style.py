"""The look of all figures, and how a figure becomes bytes that are the same every time.

Colours are those of Okabe and Ito, safe for colour-blind readers; every series also has its own marker and dash, so
that nothing is lost in grey. The colours of `THEME` are turned into the page's own when a figure is put into
HTML, so that it follows light and dark.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#fffffe"
NEUTRAL = "#7d8792"
"""Text of a figure with a transparent background: readable on white and on black."""

BLUE, ORANGE, GREEN, PINK, SKY, RUST, YELLOW = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#c9b800",
)  # fmt: skip
THEME = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper", BLUE: "--blue", RUST: "--rust"}
COLOURS = (BLUE, RUST, GREEN, PINK, ORANGE, SKY, YELLOW)
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)), (0, (8, 2)), (0, (2, 2)),
)  # fmt: skip

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.dpi": 100,
}


@dataclass(frozen=True)
class ReportFigure:
    """A rendered figure: file name without suffix, what it shows, and its bytes."""

    name: str
    title: str
    caption: str
    kind: str
    data: bytes
    wide: bool = False

    @property
    def file(self) -> str:
        """File name."""
        return f"{self.name}.{self.kind}"


@contextmanager
def drawing() -> Iterator[None]:
    """The figures' settings, for the time of drawing only."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for key, value in _SETTINGS.items():
            matplotlib.rcParams[key] = value  # type: ignore[index]
        yield


def panels(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with a grid of panels, without any global state."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def svg(figure: Figure, name: str) -> bytes:
    """The figure as SVG: no date, and ids that depend on `name` alone (unique on a page of several figures)."""
    with matplotlib.rc_context({"svg.hashsalt": name}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return b"\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + b"\n"


def png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as PNG without metadata."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def legend_below(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    """One legend for all panels, under them."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, fontsize=8.5)
