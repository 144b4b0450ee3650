"""The report for machines: summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.report.claims import Verdict
from pipeline.report.evidence import Evidence
from pipeline.report.page import key_numbers, results, tally
from pipeline.report.tables import Cell, Table
from pipeline.settings.paper import COUNTED
from pipeline.utils.statistics import Estimate

HEADLINES = {
    "ARL56": "attention56",
    "NAL56": "attention56-nal",
    "ARL92": "attention92",
    "NAL92": "attention92-nal",
    "R164": "resnet164",
    "ARL92n50": "attention92-noise50",
    "R164n50": "resnet164-noise50",
    "ARL236": "attention236",
    "ARL452": "attention452",
    "R152": "resnet152",
    "R200": "preresnet200",
}
"""Experiments of metrics.json by their short names: attention networks by learning and depth, noise in percent."""


def summarise(evidence: Evidence, tables: Sequence[Table], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Every number and verdict of the report, with what it stands on."""
    label = evidence.plan.label
    return {
        "profile": evidence.profile,
        "statement": label.statement,
        "standin": label.standin,
        "schedule": label.schedule,
        "reproduction": evidence.is_reproduction,
        "runs": {
            "done": len(evidence.runs),
            "planned": len(evidence.plan.runs),
            "published_seeds": len(evidence.published),
        },
        "results": results(evidence, verdicts),
        "iterations": max(run.config["protocol"]["iterations"] for run in evidence.plan.runs.values()),
        "key_numbers": key_numbers(evidence),
        "tally": tally(verdicts),
        "claims": {verdict.claim.id: _verdict(verdict) for verdict in verdicts},
        "tables": {table.paper.id: {cell.id: _cell(cell) for cell in table.cells} for table in tables},
        "predictions": _predictions(evidence),
        "problems": [
            {"path": problem.path, "run": problem.run, "reason": problem.reason} for problem in evidence.problems
        ],
    }


def _predictions(evidence: Evidence) -> dict[str, Any]:
    """For each experiment where its published seeds expect the test error of one more, and those trained here."""
    found = {}
    for experiment in evidence.experiments:
        sample = evidence.sample(experiment, "test_error")
        trained = {run.name: sample.values[run.seed] for run in sample.runs if run.published is None}
        if sample.prediction is not None and trained:
            low, high = sample.prediction
            n = len(sample.values) - len(trained)
            found[experiment] = {"low": _rounded(low), "high": _rounded(high), "n": n, "trained": trained}
    return found


def metrics(evidence: Evidence, verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return the headline numbers for `dvc metrics`: test errors in percent, means over the seeds that are there.

    All other numbers are in tables/ and claims.csv. The names are short, so that all of them fit a line of a terminal.
    """
    found: dict[str, float] = {"runs": len(evidence.finished)}
    outcomes = [verdict.outcome for verdict in verdicts if verdict.claim.quantity not in COUNTED]
    found |= {"hold": outcomes.count(True), "fail": outcomes.count(False)}
    for name, experiment in HEADLINES.items():
        estimate = evidence.sample(experiment, "test_error").estimate
        if estimate is not None:
            found[name] = round(estimate.value, 2)
    return found


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.text,
        "holds": verdict.outcome,
        "kind": verdict.claim.kind,
        "table": verdict.claim.table,
        "printed": verdict.printed,
        **_estimate("effect", verdict.effect),
        "p": _rounded(verdict.effect.p) if verdict.effect else None,
        "p_adjusted": _rounded(verdict.adjusted_p),
        "n": verdict.n,
        "agreeing_seeds": None if verdict.agreeing is None else list(verdict.agreeing),
        "unit": verdict.unit,
        "seeds_needed": verdict.seeds_needed,
        "reason": verdict.reason,
        "marks": list(verdict.marks),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    sample = cell.sample
    content: dict[str, Any] = {"printed": cell.printed, **_estimate("measured", cell.measured)}
    if sample is None:
        return content
    content["standard_deviation"] = None if not cell.measured else _rounded(cell.measured.spread)
    content["binomial_standard_error"] = _rounded(sample.binomial_error)
    content |= _estimate("difference", cell.difference)
    content["seeds"] = sorted(sample.values)
    content["planned_seeds"] = sample.planned
    content["runs"] = [run.identity for run in sample.runs]
    content["basis"] = cell.where
    content["marks"] = list(cell.marks)
    return content


def _estimate(name: str, value: Estimate | None) -> dict[str, Any]:
    if value is None:
        return {name: None}
    ends = None if value.low is None else [_rounded(value.low), _rounded(value.high)]
    return {name: _rounded(value.value), f"{name}_interval": ends}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
