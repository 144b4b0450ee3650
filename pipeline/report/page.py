"""What the templates show: plain values, computed once for all forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.report.claims import COUNT_TOLERANCE, NOT_RUN, Verdict, any_false_verdict
from pipeline.report.evidence import Evidence
from pipeline.report.figures import AWAITED
from pipeline.report.figures.style import ReportFigure
from pipeline.report.forms import number
from pipeline.report.tables import Table
from pipeline.report.trace import Group, trace_cell, trace_claim
from pipeline.settings.paper import SIZES
from pipeline.utils.statistics import CONFIDENCE, MINIMUM_SEEDS

RUN_COLUMNS = (
    "run", "identity", "dataset", "noise", "seed", "iterations", "test_error", "best_test_error", "train_error",
    "parameters", "multiply_adds", "precision", "marks",
)  # fmt: skip


KEY_FIGURE_NAME = "arl-nal-by-depth"
KEYS = (*(f"attention{depth}{nal}" for depth in (56, 92, 164) for nal in ("", "-nal")), "resnet164")
MOST_KEYS = 8  # experiments that are all shown as key numbers


def run_rows(evidence: Evidence) -> tuple[Sequence[str], list[list[Any]]]:
    """Header and rows of runs.csv: the finished runs of the plan and its published seeds, by experiment."""
    rows = []
    for name, run in evidence.finished.items():
        data, metrics = run.config["data"], run.metrics
        rows.append(
            [name, run.identity, run.dataset, data.get("noise", 0), run.seed, run.iterations]
            + [getattr(metrics, key) for key in RUN_COLUMNS[6:11]]
            + [run.config.get("precision", ""), "; ".join(evidence.marks.get(name, ()))]
        )
    return RUN_COLUMNS, rows


def page(
    evidence: Evidence,
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    figures: Sequence[ReportFigure],
    margin: float,
) -> dict[str, Any]:
    """Context of the report's templates."""
    header, rows = run_rows(evidence)
    return {
        "paper": evidence.paper,
        "profile": evidence.profile,
        "labels": evidence.plan.label,
        "is_reproduction": evidence.is_reproduction,
        "datasets": evidence.datasets,
        "done": len(evidence.runs),
        "planned": len(evidence.plan.runs),
        "tables": tables,
        "verdicts": verdicts,
        "tally": tally(verdicts),
        "published": len(evidence.published),
        "results": results(evidence, verdicts),
        "tested": sum(verdict.is_tested for verdict in verdicts),
        "groups": _groups(verdicts),
        "key_numbers": key_numbers(evidence),
        "own_experiments": errors_of(evidence, evidence.own_experiments),
        "key_figure": next((figure for figure in figures if figure.name == KEY_FIGURE_NAME), None),
        "any_false_verdict": any_false_verdict(verdicts),
        "figures": {figure.name: figure for figure in figures if figure.name != KEY_FIGURE_NAME},
        "awaited": [text for name, text in AWAITED.items() if name not in {figure.name for figure in figures}],
        "runs": [dict(zip(header, row, strict=True)) | {"expected": _expected(evidence, row[0])} for row in rows],
        "pending": [name for name in evidence.plan.runs if name not in evidence.runs],
        "problems": evidence.problems,
        "protocol": _protocol(evidence),
        "readings": evidence.paper.protocols["cifar10" if evidence.has_cifar_networks else "imagenet"].readings,
        "traces": traces(evidence, tables, verdicts, machine=False),
        "machine": None,
        "base": "",
        "local_traces": "",
        "margin": margin,
        "confidence": round(100 * CONFIDENCE),
        "minimum_seeds": MINIMUM_SEEDS,
        "count_tolerance": round(100 * COUNT_TOLERANCE),
    }


def _expected(evidence: Evidence, name: str) -> str:
    """Where the test error of a run trained here is expected by the published seeds; empty for a published run."""
    run = evidence.finished[name]
    expected = evidence.sample(run.experiment, "test_error").prediction
    if run.published is not None or expected is None:
        return ""
    return f"{number(expected[0])} to {number(expected[1])}"


def key_numbers(evidence: Evidence) -> list[dict[str, str]]:
    """The test errors that a reader looks for first: of a few experiments, or of all where there are few."""
    names = [name for name in evidence.experiments if len(evidence.experiments) <= MOST_KEYS or name in KEYS]
    return errors_of(evidence, names)


def errors_of(evidence: Evidence, names: Sequence[str]) -> list[dict[str, str]]:
    """The test errors of experiments that have runs, as text."""
    samples = [evidence.sample(name, "test_error") for name in names]
    return [
        {
            "experiment": sample.experiment,
            "error": number(sample.estimate.value),
            "half_width": number(sample.estimate.half_width) if sample.estimate.half_width is not None else "",
            "seeds": sample.seeds,
        }
        for sample in samples
        if sample.estimate is not None
    ]


def results(evidence: Evidence, verdicts: Sequence[Verdict]) -> str:
    """The report in one sentence: of the claims that runs here bear on, how many hold, do not hold, are undecided."""
    tested = [verdict for verdict in verdicts if verdict.is_tested]
    done = f"{len(evidence.runs)} of {len(evidence.plan.runs)} planned runs are finished"
    if evidence.published:
        done += f", {len(evidence.published)} more are published with other seeds"
    if not tested:
        return f"{done}."
    holds, fails, open_ = (sum(verdict.outcome is outcome for verdict in tested) for outcome in (True, False, None))
    claims = f"{len(tested)} trainable claim{'' if len(tested) == 1 else 's'}"
    held = ("is reproduced", "are reproduced") if evidence.is_reproduction else ("holds", "hold")
    outcomes = (
        _verb(holds, *held),
        _verb(fails, "does not hold", "do not hold"),
        _verb(open_, "is undecided", "are undecided"),
    )
    return f"Of {claims}, {', '.join(outcomes)} (on {' and '.join(evidence.datasets)}; {done})."


def _verb(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _groups(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """The claims by verdict, those without runs last."""
    groups: dict[str, list[Verdict]] = {
        name: [] for name in ("Holds", "Does not hold", "Undecided", "Counts", "Not run")
    }
    for verdict in verdicts:
        if verdict.text == NOT_RUN:
            name = "Not run"
        elif verdict.claim.kind == "ratio":
            name = "Counts"
        else:
            name = {True: "Holds", False: "Does not hold", None: "Undecided"}[verdict.outcome]
        groups[name].append(verdict)
    return {name: group for name, group in groups.items() if group}


def traces(
    evidence: Evidence, tables: Sequence[Table], verdicts: Sequence[Verdict], machine: bool
) -> dict[str, list[Group]]:
    """What is known of the runs behind each measured number, by cell."""
    cells = [cell for table in tables for cell in table.cells if cell.measured is not None]
    found = {cell.id: trace_cell(cell, evidence, machine) for cell in cells}
    return found | {v.cell: trace_claim(v, evidence, machine) for v in verdicts if v.effect is not None}


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many claims have each verdict, in the order of their weight."""
    order = sorted(
        verdicts,
        key=lambda v: (v.claim.kind == "ratio", v.text == NOT_RUN, v.outcome is None, not v.outcome, v.text),
    )
    return dict(Counter(verdict.text for verdict in order))


def _protocol(evidence: Evidence) -> list[dict[str, Any]]:
    """The plan's protocols beside the paper's: one entry for each that differs, with the runs that follow it."""
    entries: dict[str, dict[str, Any]] = {}
    for run in evidence.plan.runs.values():
        config = run.config
        settings = dict(config["protocol"]) | {
            key: config[key] for key in ("precision", "channels_last", "compile") if key in config
        }
        crops = config.get("crops", {})
        settings |= {f"{key}_crop": crops[key] for key in ("train", "test") if key in crops}
        settings |= {key: crops[key] for key in ("decoder",) if key in crops}
        settings |= {key: config["data"][key] for key in ("dataset", *SIZES) if key in config["data"]}
        entry = entries.setdefault(repr(sorted(settings.items())), {"settings": settings, "experiments": []})
        if config["experiment"] not in entry["experiments"]:
            entry["experiments"].append(config["experiment"])
        paper = config["data"]["dataset"]
        if paper not in evidence.paper.protocols:
            paper = "cifar10" if evidence.has_cifar_networks else "imagenet"
        entry["paper"] = {"dataset": paper, **evidence.paper.protocols[paper].settings}
    return list(entries.values())
