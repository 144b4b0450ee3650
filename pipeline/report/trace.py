"""The way back from a number to its runs: what they are, where they lie, and how, when and on what they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.report.counts import read_counts
from pipeline.report.evidence import Evidence, gather
from pipeline.report.machine import hardware, mlflow_address
from pipeline.report.numbers import interval, number, printed, thousands
from pipeline.report.paper import load_paper
from pipeline.report.records import Run, scan
from pipeline.report.tables import Cell, build_tables, find_cell

Group = list[tuple[str, str]]


def trace(plan: Mapping[str, Any], sources: Sequence[Path], cell: str, counts: Path | None = None) -> str:
    """What stands behind a number, e.g. "table3/attention92/nal", as text; UserError for a name that is none."""
    paper = load_paper()
    evidence = gather(plan, scan(sources), paper)
    tables = build_tables(evidence, read_counts(counts)[0])
    found = find_cell(tables, cell)
    if found is None:
        allowed = _nearest(cell, [known.id for table in tables for known in table.cells])
        raise UserError(f"cell {cell!r} is not in the report: allowed is {allowed}")
    groups = trace_groups(found, evidence, machine=True)
    width = max(len(key) for group in groups for key, _ in group)
    blocks = ["\n".join(f"{key:<{width}}  {value}" for key, value in group) for group in groups]
    return f"{cell}\n\n" + "\n\n".join(blocks) + "\n"


def _nearest(wrong: str, cells: Sequence[str]) -> str:
    """The names that share the longest beginning with a wrong one: its table's cells, or the tables."""
    parts = wrong.split("/")
    for length in (2, 1):
        start = "/".join(parts[:length]) + "/"
        if matching := [cell for cell in cells if cell.startswith(start)]:
            return ", ".join(matching)
    return ", ".join(sorted({cell.split("/")[0] + "/<row>/<column>" for cell in cells}))


def trace_groups(cell: Cell, evidence: Evidence, machine: bool) -> list[Group]:
    """Key-value pairs: first the number, then one group for each run; `machine` adds what differs by machine."""
    value, sample = cell.measured, cell.sample
    head: Group = [("printed", printed(cell.printed, cell.quantity))]
    if value is None:
        head.append(("measured", "pending"))
    else:
        text = number(value.value, cell.quantity)
        if value.spread is not None:
            text += f", standard deviation {number(value.spread, cell.quantity)}, 95 % interval "
            text += interval(value, cell.quantity)
        head.append(("measured", text))
    if sample is None:
        return [[*head, *_count_pairs(cell)]]
    head.append(("seeds", sample.seeds))
    if sample.binomial_error is not None:
        head.append(("standard error", f"{number(sample.binomial_error)} (binomial, one seed)"))
    head += [("experiment", sample.experiment), ("statement", str(evidence.plan["labels"]["statement"]))]
    return [head, *(_run_group(run, evidence, machine) for run in sample.runs)]


def _count_pairs(cell: Cell) -> Group:
    count = cell.count
    if count is None:
        return [("counted by", "python -m pipeline counts")]
    pairs = [
        ("exactly", thousands(count.of(cell.quantity))),
        ("network", f"{count.network}, {count.image_size}x{count.image_size} images"),
        ("our reading", count.reading),
        ("counted by", "python -m pipeline counts"),
    ]
    return [(key, value) for key, value in pairs if value]


def _run_group(run: Run, evidence: Evidence, machine: bool) -> Group:
    data, protocol = run.config["data"], run.config["protocol"]
    group = [
        ("run", run.name),
        ("identity", run.identity),
        ("test error", f"{number(float(run.metrics['test_error']))} on {run.metrics['test_images']} images"),
        ("data", f"{run.dataset}, checksum {data['checksum']}"),
    ]
    if data.get("noise"):
        group.append(("noisy labels", f"{data['noise']} %, checksum {data.get('noise_checksum')}"))
    group += [
        ("profile", run.profile or evidence.profile),
        ("iterations", f"{run.iterations:,} of batch {protocol['batch_size']}"),
        ("precision", str(run.config.get("precision", "unknown"))),
        ("again with", f"python -m pipeline train {run.config['experiment']} --seed {run.seed}"),
    ]
    group += [("mark", mark) for mark in evidence.marks.get(run.name, ()) if evidence.runs.get(run.name) is run]
    return group + _machine_pairs(run) if machine else group


def _machine_pairs(run: Run) -> Group:
    """Where the files lie and, from provenance.json, what made them."""
    pairs = [("folder", str(run.folder))]
    if run.provenance is None:
        return [*pairs, ("provenance", "none in the sources: this copy says nothing of commit and hardware")]
    pairs.append(("MLflow run", mlflow_address(run.provenance) or "none"))
    for segment in run.provenance["segments"]:
        commit = segment.get("commit") or "unknown"
        pairs += [
            ("commit", f"{commit}{', with local changes' if segment.get('dirty') else ''}"),
            ("command", str(segment.get("command", "unknown"))),
            ("hardware", hardware(segment)),
            ("time", f"{segment.get('started')}, {segment.get('seconds', 0):.1f} s, "
                     f"iterations {segment.get('from_iteration')} to {segment.get('to_iteration')}, "
                     f"{segment.get('images_per_second') or 0:.0f} images/s"),
            ("versions", ", ".join(f"{k} {v}" for k, v in (segment.get("versions") or {}).items())),
        ]  # fmt: skip
    return pairs
