"""What the templates show: plain values, computed once for all forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.report.claims import COUNT_TOLERANCE, NOT_RUN, Verdict
from pipeline.report.evidence import Evidence
from pipeline.report.figures import AWAITED
from pipeline.report.figures.style import Picture
from pipeline.report.tables import Table
from pipeline.report.trace import Group, trace_cell, trace_claim
from pipeline.settings.paper import SIZES
from pipeline.utils.statistics import CONFIDENCE, MINIMUM_SEEDS

RUN_COLUMNS = (
    "run", "identity", "dataset", "noise", "seed", "iterations", "test_error", "best_test_error", "train_error",
    "parameters", "multiply_adds", "precision", "marks",
)  # fmt: skip


def run_rows(evidence: Evidence) -> tuple[Sequence[str], list[list[Any]]]:
    """Header and rows of runs.csv: the finished runs of the plan, in its order."""
    rows = []
    for name in evidence.plan["runs"]:
        if name not in evidence.runs:
            continue
        run = evidence.runs[name]
        data, metrics = run.config["data"], run.metrics
        rows.append(
            [name, run.identity, run.dataset, data.get("noise", 0), run.seed, run.iterations]
            + [getattr(metrics, key) for key in RUN_COLUMNS[6:11]]
            + [run.config.get("precision", ""), "; ".join(evidence.marks.get(name, ()))]
        )
    return RUN_COLUMNS, rows


def page(
    evidence: Evidence, tables: Sequence[Table], verdicts: Sequence[Verdict], pictures: Sequence[Picture], margin: float
) -> dict[str, Any]:
    """Context of the report's templates."""
    header, rows = run_rows(evidence)
    return {
        "paper": evidence.paper,
        "profile": evidence.profile,
        "labels": evidence.plan["labels"],
        "is_reproduction": evidence.is_reproduction,
        "datasets": evidence.datasets,
        "done": len(evidence.runs),
        "planned": len(evidence.plan["runs"]),
        "tables": tables,
        "verdicts": verdicts,
        "tally": tally(verdicts),
        "pictures": {picture.name: picture for picture in pictures},
        "awaited": [text for name, text in AWAITED.items() if name not in {picture.name for picture in pictures}],
        "runs": [dict(zip(header, row, strict=True)) for row in rows],
        "pending": [name for name in evidence.plan["runs"] if name not in evidence.runs],
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


def traces(
    evidence: Evidence, tables: Sequence[Table], verdicts: Sequence[Verdict], machine: bool
) -> dict[str, list[Group]]:
    """The way back from each number that is there, by cell."""
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
    for config in evidence.plan["runs"].values():
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
