"""Pictures of a search: its trials as lines over parallel axes, and what each parameter matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.report.figures.style import BLUE, INK, MUTED, NEUTRAL, PAPER, RUST, drawing, legend_below, panels, svg
from pipeline.tuning.results import Findings
from pipeline.tuning.space import Range, Value
from pipeline.tuning.study import importances
from pipeline.tuning.trials import Progress

TICKS = 4  # between the ends of an axis of numbers; of whole ones, each is a tick if there are not too many
MOST_STEPS = 8
LABEL: dict[str, Any] = {
    "fontsize": 7,
    "color": INK,
    "bbox": {"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8},
}


class _Axis:
    """One of the parallel axes: places of its values from 0 to 1, and what stands beside them."""

    def __init__(self, title: str, parameter: Range | None, values: Sequence[Value]) -> None:
        self.title = title
        self._order: list[Value] = []
        self._log = False
        if parameter is not None and parameter.whole and parameter.high - parameter.low < MOST_STEPS:
            self._order = list(range(int(parameter.low), int(parameter.high) + 1))
        elif parameter is not None:
            self._log, self._low, self._high = parameter.log, float(parameter.low), float(parameter.high)
        elif all(isinstance(value, float) for value in values):
            low, high = min(map(float, values)), max(map(float, values))
            self._low, self._high = (low, high) if low < high else (low - 1, high + 1)
        else:
            self._order = list(values)

    def place(self, value: Value) -> float:
        """Where a value stands."""
        if self._order:
            return self._order.index(value) / (len(self._order) - 1)
        number, low, high = float(value), self._low, self._high
        if self._log:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return (number - low) / (high - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and their labels."""
        if self._order:
            return [(self.place(value), str(value).lower()) for value in self._order]
        shares = [index / TICKS for index in range(TICKS + 1)]
        if self._log:
            return [(share, f"{self._low * (self._high / self._low) ** share:.2g}") for share in shares]
        return [(share, f"{self._low + share * (self._high - self._low):.3g}") for share in shares]


def draw_coordinates(found: Findings) -> bytes | None:
    """Parallel coordinates (SVG): each trial a line through its values to its error; None where no trial has one."""
    shown = [progress for progress in found.trials if progress.error is not None]
    if not shown:
        return None
    axes = [
        _Axis(name, parameter if isinstance(parameter, Range) else None, _choices(parameter))
        for name, parameter in found.space.parameters.items()
    ]
    axes.append(_Axis("validation error, %", None, [float(progress.error or 0.0) for progress in shown]))
    with drawing():
        figure, (axis,) = panels(1, 1, 1.6 * len(axes) + 1.2, 3.6)
        for progress in reversed(shown):  # the best on top
            _line(axis, axes, progress, is_best=progress is found.best, is_own=progress is found.own)
        for position, scale in enumerate(axes):
            axis.axvline(position, color=MUTED, linewidth=0.8, zorder=1)
            for place, label in scale.ticks:
                axis.annotate(label, (position, place), (5, 0), textcoords="offset points", va="center", **LABEL)
        axis.set_xticks(range(len(axes)), [_short(scale.title) for scale in axes])
        axis.set_yticks([])
        axis.set_xlim(-0.1, len(axes) - 0.6)
        axis.set_ylim(-0.05, 1.05)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        legend_below(figure, [_key("best", BLUE, "-"), _key("own settings", RUST, "-"), *_STATES_KEYS], 4)
        return svg(figure, f"{found.settled.name}-coordinates")


def _choices(parameter: object) -> Sequence[Value]:
    return getattr(parameter, "choices", ())


def _short(name: str) -> str:
    return name.removeprefix("protocol.").removeprefix("options.").replace("s.", " ").replace("_", " ")


def _line(axis: Axes, axes: Sequence[_Axis], progress: Progress, *, is_best: bool, is_own: bool) -> None:
    *parameters, error = axes
    places = [scale.place(progress.trial.values[scale.title]) for scale in parameters]
    places.append(error.place(float(progress.error or 0.0)))
    finished = progress.trial.state == "finished"
    axis.plot(
        range(len(axes)),
        places,
        color=BLUE if is_best else RUST if is_own else NEUTRAL,
        linestyle="-" if finished else (0, (1, 1.5)),
        linewidth=2.2 if is_best else 1.6 if is_own else 0.9,
        marker="o",
        markersize=3,
        zorder=2,
    )


def _key(label: str, colour: str, style: object) -> Line2D:
    return Line2D([], [], color=colour, linestyle=style, label=label)  # type: ignore[arg-type]


_STATES_KEYS = (_key("finished", NEUTRAL, "-"), _key("stopped early", NEUTRAL, (0, (1, 1.5))))


def draw_importance(found: Findings) -> bytes | None:
    """How much of the variance of the error at the first comparison each parameter explains (SVG), over all trials.

    None for too few trials. At that point every trial has had the same training; errors at the ends of their training
    could not be compared.
    """
    measured = [
        (progress.trial.values, error)
        for progress in found.trials
        if (error := progress.error_at(found.first_comparison)) is not None
    ]
    shares = importances(found.space, measured)
    if not shares:
        return None
    with drawing():
        figure, (axis,) = panels(1, 1, 5.6, 0.32 * len(shares) + 1.3)
        names = [_short(name) for name in shares]
        axis.barh(names, [100 * share for share in shares.values()], color=BLUE, height=0.6)
        axis.invert_yaxis()
        axis.set_xlim(0, 100)
        axis.set_xlabel(
            f"% of the variance of the error at iteration {found.first_comparison:,}, {len(measured)} trials (fANOVA)"
        )
        axis.grid(visible=False, axis="y")
        return svg(figure, f"{found.settled.name}-importance")
