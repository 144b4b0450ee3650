"""Figures that compare experiments: errors by noise, depth and cost, and responses by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.report.counts import CountsByNetwork
from pipeline.report.evidence import Evidence
from pipeline.report.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PAPER,
    RUST,
    ReportFigure,
    legend_below,
    panels,
    svg,
)  # fmt: skip
from pipeline.settings.paper import UNITS, PaperRow, load_paper
from pipeline.utils.statistics import slope

_LEVELS = tuple(load_paper().table("table5").noise_levels or ())
_DEPTHS = {row.id: int(row.label.rpartition("-")[2]) for row in load_paper().table("table3").rows}
_NETWORKS = {"resnet164": ("ResNet-164", RUST, "s"), "attention92": ("Attention-92", BLUE, "o")}


def _printed(evidence: Evidence, table: str, column: str) -> dict[str, float]:
    """Printed numbers of a column, by row."""
    return {row.id: float(row.cells[column].printed or 0) for row in evidence.paper.table(table).rows}


def _points(
    axis: Axes, evidence: Evidence, places: Sequence[tuple[float, str]], colour: str, marker: str, single: bool
) -> None:
    """Measured means at (x, experiment); places without runs stay empty.

    Bars are standard deviations over seeds, or where every point has but one seed (`single`) binomial errors.
    Squares are moved a little to the right, so that two series' bars do not hide each other.
    """
    x, means, bars = [], [], []
    for place, name in places:
        sample = evidence.sample(name, "test_error")
        if sample.estimate is not None:
            x.append(place + (0.8 if marker == "s" else 0))
            means.append(sample.estimate.value)
            bars.append((sample.binomial_error if single else sample.estimate.spread) or 0.0)
    axis.errorbar(x, means, bars, color=colour, marker=marker, capsize=3, linewidth=1.8, elinewidth=1.2)


def _paper_line(axis: Axes, x: Sequence[float], y: Sequence[float], colour: str, marker: str) -> None:
    axis.plot(
        x, y, color=colour, marker=marker, linestyle=(0, (3, 2)), linewidth=1.0, markerfacecolor=PAPER, alpha=0.8
    )  # fmt: skip


def _kinds(single: bool = False) -> list[Line2D]:
    """Legend entries: what is filled was measured here, what is hollow stands in the paper."""
    bars = "binomial s.e." if single else "s.d. of seeds"
    return [
        Line2D([], [], color=MUTED, marker="o", linewidth=1.8, label=f"measured, bars: {bars}"),
        Line2D([], [], color=MUTED, marker="o", markerfacecolor=PAPER, linestyle=(0, (3, 2)), linewidth=1.0,
               label="the paper, on CIFAR-10"),
    ]  # fmt: skip


def _single(evidence: Evidence, experiments: Sequence[str]) -> bool:
    return max((len(evidence.sample(name, "test_error").values) for name in experiments), default=0) <= 1


def noise(evidence: Evidence) -> ReportFigure | None:
    """Test error against label noise for both networks of Table 5, with slopes."""
    experiments = {key: [key, *(f"{key}-noise{level}" for level in _LEVELS)] for key in _NETWORKS}
    names = [name for group in experiments.values() for name in group]
    noisy = [name for group in experiments.values() for name in group[1:]]
    if not any(evidence.sample(name, "test_error").values for name in noisy):
        return None
    single = _single(evidence, names)
    figure, (axis,) = panels(1, 1, 5.6, 3.8)
    handles: list[Any] = []
    for key, (label, colour, marker) in _NETWORKS.items():
        places = list(zip((0, *_LEVELS), experiments[key], strict=True))
        _points(axis, evidence, places, colour, marker, single)
        printed = list(_printed(evidence, "table5", key).values())
        _paper_line(axis, _LEVELS, printed, colour, marker)
        ours = evidence.slopes(dict(zip(_LEVELS, experiments[key][1:], strict=True))).estimate
        text = f"{label}, slope " + ("pending" if ours is None else f"{ours.value:.2f}")
        text += f" ({slope(_LEVELS, printed):.2f})"
        handles.append(Line2D([], [], color=colour, marker=marker, label=text))
    axis.set_xlabel("labels redrawn at random, %")
    axis.set_ylabel("test error %")
    axis.set_xticks((0, *_LEVELS))
    axis.set_ylim(bottom=0)
    legend_below(figure, [*handles, *_kinds(single)], 2)
    return ReportFigure(
        "error-by-noise",
        "Error against label noise",
        "Slopes are least squares over the four noise levels, seed by seed, in points of error for 10 points of noise; "
        "the paper's in brackets.",
        "svg",
        svg(figure, "error-by-noise"),
    )


def depth(evidence: Evidence) -> ReportFigure | None:
    """ARL against NAL over the depth of the network (Table 3, which the paper has for CIFAR-10 only)."""
    arms = {"arl": ("residual (ARL)", "", BLUE, "o"), "nal": ("naive (NAL)", "-nal", RUST, "s")}
    names = [name + suffix for name in _DEPTHS for _, suffix, _, _ in arms.values()]
    if not any(evidence.sample(name, "test_error").values for name in names):
        return None
    single = _single(evidence, names)
    figure, (axis,) = panels(1, 1, 5.6, 3.8)
    handles: list[Any] = []
    for column, (label, suffix, colour, marker) in arms.items():
        _points(axis, evidence, [(d, name + suffix) for name, d in _DEPTHS.items()], colour, marker, single)
        _paper_line(axis, list(_DEPTHS.values()), list(_printed(evidence, "table3", column).values()), colour, marker)
        handles.append(Line2D([], [], color=colour, marker=marker, label=label))
    axis.set_xticks(list(_DEPTHS.values()))
    axis.set_xlabel("depth of the trunk (weighted layers)")
    axis.set_ylabel("test error %")
    axis.set_ylim(bottom=0)
    legend_below(figure, [*handles, *_kinds(single)], 2)
    return ReportFigure(
        "arl-nal-by-depth",
        "Residual against naive attention learning, by depth",
        "More modules a stage make the network deeper; in the paper that helps only with residual attention learning.",
        "svg",
        svg(figure, "arl-nal-by-depth"),
    )


def cost(evidence: Evidence, counts: CountsByNetwork) -> ReportFigure | None:
    """Test error against parameters and multiply-adds of the clean networks, with the paper's points."""
    networks = {row.id: row for row in evidence.paper.table("table6").rows}
    measured = {name: evidence.sample(name, "test_error") for name in (*_DEPTHS, *networks)}
    measured = {name: sample for name, sample in measured.items() if sample.values}
    if not measured:
        return None
    printed = "cifar100" if evidence.datasets == ["cifar100"] else "cifar10"
    stated = printed.upper().replace("CIFAR", "CIFAR-")
    figure, axes = panels(1, 2, 9.2, 3.9, sharey=True)
    for axis, key in zip(axes, ("parameters", "multiply_adds"), strict=True):
        for name, sample in measured.items():
            value = sample.estimate
            assert value is not None
            _dot(axis, getattr(sample.runs[0].metrics, key) / 1e6, value.value, name, hollow=False)
        for name, row in networks.items():
            count = counts.get(str(row.cells["parameters"].network))
            if count is not None:
                _dot(axis, count.of(key) / 1e6, float(row.cells[printed].printed or 0), name, hollow=True)
        axis.set_xscale("log")
        axis.set_xlabel(f"{key.replace('_', '-')}, millions")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: "")
    axes[0].set_ylabel("test error %")
    handles = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="attention networks"),
        Line2D([], [], color=RUST, marker="s", linestyle="", label="ResNets"),
        Line2D([], [], color=GREEN, marker="^", linestyle="", label="wide ResNets"),
        Line2D(
            [], [], color=INK, marker="o", markerfacecolor=PAPER, linestyle="", label=f"hollow: the paper, {stated}"
        ),
    ]
    legend_below(figure, handles, 4)
    return ReportFigure(
        "error-by-cost",
        "Error against parameters and multiply-adds",
        "Filled points were measured here, on this profile's data and image size; hollow ones are the paper's on "
        f"{stated}, at the counts of this project's networks for 32x32 images.",
        "svg",
        svg(figure, "error-by-cost"),
        wide=True,
    )


def _dot(axis: Axes, x: float, y: float, name: str, *, hollow: bool) -> None:
    colour, marker = (
        (GREEN, "^") if name.startswith("wrn") else (RUST, "s") if name.startswith("resnet") else (BLUE, "o")
    )
    axis.plot([x], [y], color=colour, marker=marker, markerfacecolor=PAPER if hollow else colour, linestyle="")
    short = name.removeprefix("attention").removeprefix("resnet").removeprefix("wrn").replace("_", "-")
    axis.annotate(
        short, (x, y), xytext=(5, -10 if hollow else 4), textcoords="offset points", fontsize=7.5, color=MUTED
    )


def response(evidence: Evidence) -> ReportFigure | None:
    """Mean absolute response at the end of each stage, relative to the first (Figure 4)."""
    table = evidence.paper.table("figure4")
    columns = {column.id: column.label for column in table.columns}
    if not any(evidence.sample(name, "response", 2).values for name in columns):
        return None
    figure, (axis,) = panels(1, 1, 5.6, 3.8)
    handles: list[Any] = []
    looks = ((BLUE, "o"), (RUST, "s"), (GREEN, "^"))
    for (name, label), (colour, marker) in zip(columns.items(), looks, strict=True):
        printed = [1.0, *(float(row.cells[name].printed or 0) for row in table.rows)]
        _paper_line(axis, (1, 2, 3), printed, colour, marker)
        samples = [evidence.sample(name, "response", stage).estimate for stage in (1, 2, 3)]
        values = [sample.value for sample in samples if sample]
        axis.plot(range(1, len(values) + 1), values, color=colour, marker=marker)
        handles.append(Line2D([], [], color=colour, marker=marker, label=label))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks((1, 2, 3))
    axis.set_xlabel("stage")
    axis.set_ylabel("mean |response|, stage 1 = 1")
    legend_below(figure, [*handles, *_kinds()[1:]], 2)
    return ReportFigure(
        "response-by-stage",
        "Mean response by stage (Figure 4)",
        "Mean absolute output of the last unit of each stage over the test set. Solid: measured here.",
        "svg",
        svg(figure, "response-by-stage"),
    )


_AXES = {"parameters": "parameters, millions", "multiply_adds": "multiply-adds, billions"}


def imagenet_cost(evidence: Evidence, counts: CountsByNetwork) -> ReportFigure | None:
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
                _imagenet_dot(axis, cost, printed, row, reading=bool(counts[_network(row)].reading), hollow=True)
            measured = evidence.sample_of("imagenet", str(row.cells["top1"].experiment), "test_error").estimate
            if measured is not None:
                _imagenet_dot(axis, cost, measured.value, row, reading=False, hollow=False)
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


def _imagenet_dot(axis: Axes, x: float, y: float, row: PaperRow, *, reading: bool, hollow: bool) -> None:
    attention = row.id.startswith("attention")
    colour, marker = (BLUE, "o") if attention else (RUST, "s")
    axis.plot([x], [y], color=colour, marker=marker, markerfacecolor=PAPER if hollow else colour, linestyle="")
    if hollow:
        name = row.label.partition(" (")[0] + ("*" if reading else "")
        place = (5, -10 if attention else 4)  # two networks with the same error lie side by side
        axis.annotate(name, (x, y), xytext=place, textcoords="offset points", fontsize=7.5, color=MUTED)
