"""The report for machines: summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.report.claims import Verdict
from pipeline.report.evidence import Evidence
from pipeline.report.page import key_numbers, results, tally
from pipeline.report.tables import Cell, Table
from pipeline.utils.statistics import Estimate

INDEXED = {
    "profile", "statement", "standin", "reproduction", "iterations", "runs", "results", "key_numbers", "claims",
}  # fmt: skip
"""What the index over all profiles reads of a summary."""


def summarise(evidence: Evidence, tables: Sequence[Table], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Every number and verdict of the report, with what it stands on."""
    labels = evidence.plan["labels"]
    return {
        "profile": evidence.profile,
        "statement": labels["statement"],
        "standin": labels["standin"],
        "schedule": labels["schedule"],
        "reproduction": evidence.is_reproduction,
        "runs": {
            "done": len(evidence.runs),
            "planned": len(evidence.plan["runs"]),
            "published_seeds": len(evidence.published),
        },
        "results": results(evidence, verdicts),
        "iterations": max(config["protocol"]["iterations"] for config in evidence.plan["runs"].values()),
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


def metrics(tables: Sequence[Table], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The measured numbers of the report and nothing else, for `dvc metrics`: by table and cell, or claim.

    Rows and columns share a key: a column named "error" alone would be taken for a failure by DVC.
    """
    found: dict[str, Any] = {}
    for table in tables:
        for cell in table.cells:
            if cell.measured is not None:
                name, _, rest = cell.id.partition("/")
                found.setdefault(name, {})[rest] = _rounded(cell.measured.value)
    effects = {verdict.claim.id: _rounded(verdict.effect.value) for verdict in verdicts if verdict.effect}
    return found | ({"claims": effects} if effects else {})


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
