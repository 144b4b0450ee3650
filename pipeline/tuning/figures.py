"""Figures of a search, drawn by Optuna: its finished trials over parallel axes, and how much each parameter matters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import optuna

from pipeline.tuning.space import Space, Values
from pipeline.tuning.study import evaluator, study_of

Measured = Sequence[tuple[Values, float]]  # the values of trials, and their errors in percent

MINIMUM_TRIALS = 4  # fewer explain nothing


def draw_coordinates(space: Space, measured: Measured, name: str) -> bytes | None:
    """Draw each trial as a line through its values to its error (SVG); None where there is none."""
    if not measured:
        return None
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    study = study_of(space, measured)
    return _svg(lambda: plot_parallel_coordinate(study, target_name="validation error, %"), f"{name}-coordinates")


def draw_importance(space: Space, measured: Measured, name: str, iteration: int) -> bytes | None:
    """Draw how much of the variance of the error at an iteration each parameter explains (SVG).

    None for fewer than four trials, or equal errors.
    """
    if len(measured) < MINIMUM_TRIALS or len({error for _, error in measured}) < 2:
        return None
    from optuna.visualization.matplotlib import plot_param_importances

    study, target = study_of(space, measured), f"variance of the error at iteration {iteration:,}"
    return _svg(lambda: plot_param_importances(study, evaluator=evaluator(), target_name=target), f"{name}-importance")


def _svg(draw: Any, name: str) -> bytes:
    """Return a figure of Optuna's as SVG, equal bytes for equal trials."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        figure = draw().figure
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return b"\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + b"\n"
