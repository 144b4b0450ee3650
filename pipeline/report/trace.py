"""The runs behind a number: what they are, where they lie, and how, when and on what they were made."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.report.claims import Verdict, judge
from pipeline.report.counts import read_counts
from pipeline.report.evidence import MOVED, Evidence, read_current_state
from pipeline.report.forms import difference_text, interval, number, printed, thousands
from pipeline.report.matching import gather
from pipeline.report.records import Run, scan
from pipeline.report.tables import Cell, build_tables
from pipeline.runs.records import Provenance, Segment
from pipeline.settings.paper import load_paper
from pipeline.settings.plan import Plan
from pipeline.utils.errors import UserError, printable
from pipeline.utils.names import did_you_mean
from pipeline.utils.project import UI_PORT
from pipeline.utils.statistics import EQUIVALENCE_MARGIN, Estimate

Group = list[tuple[str, str]]


def trace(
    plan: Plan,
    sources: Sequence[Path],
    name: str,
    counts: Path | None = None,
    *,
    data: Path | None = None,
    margin: float = EQUIVALENCE_MARGIN,
) -> str:
    """What stands behind a number, e.g. "table3/attention92/nal" or "claims/noise-slope", as text.

    `counts`, `data` and `margin` are those of `build_report`. UserError for a name that the report does not have.
    """
    evidence = gather(plan, scan(sources), load_paper(), read_current_state(data))
    counted = read_counts(counts)
    cells = {cell.id: cell for table in build_tables(evidence, counted) for cell in table.cells}
    verdicts = {verdict.cell: verdict for verdict in judge(evidence, counted, margin)}
    if name in cells:
        groups = trace_cell(cells[name], evidence, machine=True)
    elif name in verdicts:
        groups = trace_claim(verdicts[name], evidence, machine=True)
    else:
        allowed = [*cells, *verdicts]
        hint = f"{did_you_mean(name.lower(), allowed, least=0.0)} allowed: {_alike(name, allowed)}".lstrip()
        raise UserError(f"number {name!r} is not in the report: {hint}")
    width = max(len(key) for group in groups for key, _ in group)
    blocks = ["\n".join(f"{key:<{width}}  {printable(value)}" for key, value in group) for group in groups]
    return f"{name}\n\n" + "\n\n".join(blocks) + "\n"


def _alike(wrong: str, names: Sequence[str]) -> str:
    """The names that share the first parts with a wrong one, or the form of all names."""
    parts = wrong.split("/")
    for length in (2, 1):
        start = "/".join(parts[:length]) + "/"
        if matching := [name for name in names if name.startswith(start)]:
            return ", ".join(matching)
    tables = {name.split("/")[0]: "<claim>" if name.count("/") == 1 else "<row>/<column>" for name in names}
    return ", ".join(f"{table}/{rest}" for table, rest in sorted(tables.items()))


def trace_cell(cell: Cell, evidence: Evidence, machine: bool) -> list[Group]:
    """Key-value pairs: first the number, then one group for each run; `machine` adds what differs by machine."""
    value, sample = cell.measured, cell.sample
    head: Group = [("printed", printed(cell.printed, cell.quantity))]
    head.append(("measured", "pending" if value is None else _measured(value, cell.quantity)))
    if sample is None:
        return [[*head, *_count_pairs(cell)]]
    if cell.difference is not None:
        head.append(("difference", difference_text(cell)))
    head.append(("seeds", sample.seeds))
    if sample.binomial_error is not None:
        head.append(("standard error", f"{number(sample.binomial_error)} (binomial, one seed)"))
    head += [("experiment", sample.experiment), ("statement", evidence.plan.label.statement)]
    return [head, *_run_groups(cell.id, sample.runs, evidence, machine)]


def trace_claim(verdict: Verdict, evidence: Evidence, machine: bool) -> list[Group]:
    """The same for the effect of a claim: the verdict and its reason, then the runs of all its arms."""
    effect, quantity = verdict.effect, verdict.quantity
    head: Group = [
        ("claim", verdict.claim.text),
        ("printed", printed(verdict.printed, quantity)),
        ("measured", "pending" if effect is None else _measured(effect, quantity)),
        ("verdict", f"{verdict.text}: {verdict.reason}"),
    ]
    if verdict.claim.kind == "ratio":
        networks = f"{verdict.claim.network} / {verdict.claim.reference}"
        return [[*head, ("networks", networks), ("counted by", "python -m pipeline counts")]]
    head += [("seeds", verdict.seeds or "none")]
    if verdict.seeds_needed:
        head.append(("seeds needed", f"about {verdict.seeds_needed}, by the spread observed"))
    head += [("experiments", ", ".join(sample.experiment for sample in verdict.samples) or "none here")]
    head += [("statement", evidence.plan.label.statement)]
    runs = {run.identity: run for sample in verdict.samples for run in sample.runs}
    return [head, *_run_groups(verdict.cell, list(runs.values()), evidence, machine)]


def _run_groups(name: str, runs: Sequence[Run], evidence: Evidence, machine: bool) -> list[Group]:
    groups = [_run_group(run, evidence, machine) for run in runs]
    if not machine and any(run.published is None for run in runs):
        more = f"python -m pipeline trace {name}"
        groups.append([("commit, command, hardware, time, MLflow run", f"where the runs were made: {more}")])
    return groups


def _measured(value: Estimate, quantity: str) -> str:
    text = number(value.value, quantity)
    if value.spread is not None:
        text += f", standard deviation {number(value.spread, quantity)}"
    return f"{text}, 95 % interval {interval(value, quantity)}" if value.low is not None else text


def _count_pairs(cell: Cell) -> Group:
    count = cell.count
    if count is None:
        return [("counted by", "python -m pipeline counts")]
    pairs = [
        ("exactly", thousands(count.of(cell.quantity))),
        ("network", f"{count.network}, {count.image_size}x{count.image_size} images"),
        ("inferred", count.reading),
        ("counted by", "python -m pipeline counts"),
    ]
    return [(key, value) for key, value in pairs if value]


def _run_group(run: Run, evidence: Evidence, machine: bool) -> Group:
    data, protocol = run.config["data"], run.config["protocol"]
    group = [
        ("run", run.name),
        ("identity", run.identity),
        ("test error", f"{number(run.metrics.test_error)} on {run.metrics.test_images} images"),
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
    marks = [*_marks(run, evidence)]
    if machine and run.provenance is not None:
        marks += marks_here(run.provenance)
    group += [("mark", mark) for mark in dict.fromkeys(marks)]
    return group + (_machine_pairs(run) if machine else _published_pairs(run))


def _marks(run: Run, evidence: Evidence) -> tuple[str, ...]:
    """What is to be said of a run of the plan, or of another profile's."""
    if evidence.runs.get(run.name) is run:
        return evidence.marks.get(run.name, ())
    return tuple(sorted(evidence.current_state.marks(run)))


def _machine_pairs(run: Run) -> Group:
    """Where the files lie and, from provenance.json, what made them."""
    verified = "SHA-256 of each is that of its checksums.json" if run.verified else "unverified: no checksums.json"
    pairs = [("folder", str(run.folder)), ("files", verified)]
    if run.provenance is None:
        return [*pairs, ("provenance", "none in the sources: this copy says nothing of commit and hardware")]
    return pairs + _provenance_pairs(run.provenance, mlflow_address(run.provenance))


def _published_pairs(run: Run) -> Group:
    """Folder and provenance of the committed copy of a run, and nothing that differs by machine."""
    if run.published is None:
        return []
    return [("folder", run.published.shown), *_provenance_pairs(run.published.provenance, None)]


def _provenance_pairs(provenance: Provenance, address: str | None) -> Group:
    pairs = [("MLflow run", provenance.mlflow_run_id or "none")]
    if address:
        pairs.append(("MLflow page", address))
    for segment in provenance.segments:
        pairs += [
            ("commit", f"{segment.commit or 'unknown'}{', with local changes' if segment.dirty else ''}"),
            ("command", segment.command),
            ("hardware", segment.hardware + (f", {segment.gpus:g} of a GPU" if segment.gpus else "")),
            ("time", f"{segment.started}, {segment.seconds:.1f} s, "
                     f"iterations {segment.from_iteration} to {segment.to_iteration}, "
                     f"{segment.images_per_second:.0f} images/s"),
            ("versions", segment.libraries),
        ]  # fmt: skip
    return pairs


MLFLOW_URL = f"http://127.0.0.1:{UI_PORT}"
"""Where `make ui` serves MLflow."""
DIRTY = "made from a working tree with changes"
ROOT = Path(__file__).resolve().parents[2]
TRAINING_CODE = ("pipeline/training", "models")


def machine_page(evidence: Evidence) -> dict[str, Any]:
    """Context of the local page's own part: one entry for each run with its provenance, and totals."""
    runs = [_entry(evidence.runs[name]) for name in evidence.plan.runs if name in evidence.runs]
    known = [entry for entry in runs if entry["seconds"] is not None]
    return {
        "runs": runs,
        "seconds": sum(entry["seconds"] for entry in known),
        "devices": sorted({device for entry in known for device in entry["devices"]}),
        "commits": sorted({commit for entry in known for commit in entry["commits"]}),
        "unknown": len(runs) - len(known),
        "elsewhere": evidence.elsewhere,
    }


def _entry(run: Run) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": run.name, "identity": run.identity, "folder": str(run.folder), "seconds": None}
    if run.provenance is None:
        return entry
    segments, seconds = run.provenance.segments, run.provenance.seconds
    trained = run.iterations * run.config["protocol"]["batch_size"]
    return entry | {
        "seconds": seconds,
        "images_per_second": trained / seconds if seconds else 0.0,
        "segments": len(segments),
        "devices": _distinct(segment.hardware for segment in segments),
        "versions": _distinct(segment.libraries for segment in segments),
        "commits": _distinct(_commit(segment) for segment in segments),
        "marks": marks_here(run.provenance),
        "mlflow": mlflow_address(run.provenance),
    }


def mlflow_address(provenance: Provenance) -> str | None:
    """Address of the run's page in MLflow's user interface, None for a run that was not tracked.

    The interface is that of the server in MLFLOW_TRACKING_URI, else the one that `make ui` serves.
    """
    if not provenance.mlflow_run_id:
        return None
    server = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    # Whatever stands before the @ is a password.
    address = f"{server.scheme}://{server.netloc.rpartition('@')[2]}{server.path.rstrip('/')}"
    return f"{address if server.scheme in ('http', 'https') else MLFLOW_URL}/#/runs/{provenance.mlflow_run_id}"


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _commit(segment: Segment) -> str:
    commit = (segment.commit or "unknown")[:10]
    return f"{commit} with local changes" if segment.dirty else commit


def marks_here(provenance: Provenance, root: Path = ROOT) -> list[str]:
    """The marks of a run in this checkout: that it was moved, and whether the code that made it has changed.

    Unlike the marks of the tracked report these may differ with every commit.
    """
    marks = [MOVED] if provenance.was_moved else []
    for commit in dict.fromkeys(segment.commit for segment in provenance.segments if segment.commit):
        changed = training_code_changed(commit, root)
        if changed is None:
            marks.append(f"unknown whether training code has changed since commit {commit[:10]}, which is not here")
        elif changed:
            marks.append(f"training code has changed since commit {commit[:10]}")
    return marks + ([DIRTY] if any(segment.dirty for segment in provenance.segments) else [])


@cache
def training_code_changed(commit: str, root: Path = ROOT) -> bool | None:
    """Whether the training code of a checkout differs from that of a commit; None where git does not know it."""
    if not re.fullmatch("[0-9a-f]{7,64}", commit):
        return None
    command = ["git", "-C", str(root), "diff", "--quiet", commit, "--", *TRAINING_CODE]
    try:
        status = subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        return None
    return {0: False, 1: True}.get(status)
