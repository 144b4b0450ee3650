"""From a plan and the folders where runs lie to the report of a profile."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import lexists
from pathlib import Path

from pipeline.report import coverage
from pipeline.report.claims import Verdict, judge
from pipeline.report.counts import read_counts
from pipeline.report.evidence import Evidence, read_current_state
from pipeline.report.figures import draw
from pipeline.report.figures.attention import find_masks
from pipeline.report.figures.overview import noise_matrices
from pipeline.report.figures.style import ReportFigure
from pipeline.report.forms import claims_csv, rounded_csv, table_csv, table_latex
from pipeline.report.matching import gather
from pipeline.report.page import KEY_FIGURE_NAME, page, run_rows, tally, traces
from pipeline.report.records import scan
from pipeline.report.render import render
from pipeline.report.resnet200 import against_resnet200, section_files
from pipeline.report.speed import read_speeds
from pipeline.report.summaries import SUMMARY, Summary
from pipeline.report.summary import metrics, summarise
from pipeline.report.tables import Table, build_tables
from pipeline.report.trace import machine_page
from pipeline.runs.reading import DamagedError
from pipeline.settings.paper import load_paper
from pipeline.settings.plan import Plan
from pipeline.utils.errors import printable
from pipeline.utils.files import refuse_link, write_atomic
from pipeline.utils.statistics import EQUIVALENCE_MARGIN

INCOMPLETE = "incomplete"
PAGE, KINDS = "report.md", ("figures", "tables")
KEY_FIGURE = f"figures/{KEY_FIGURE_NAME}.svg"


@dataclass(frozen=True)
class ReportSummary:
    """What a report says in short, and which of its tracked files are other than before."""

    profile: str
    runs_done: int
    runs_planned: int
    verdicts: Mapping[str, int]
    problems: tuple[str, ...]
    report: Path
    changed: tuple[Path, ...]

    def __str__(self) -> str:
        lines = [f"{self.profile}: {self.runs_done} of {self.runs_planned} runs; report in {self.report.parent}"]
        lines += [f"  {n} {'claim' if n == 1 else 'claims'}: {verdict}" for verdict, n in self.verdicts.items()]
        lines += [f"  not used: {problem}" for problem in self.problems]
        lines.append(f"  {len(self.changed)} files changed" if self.changed else "  equal to the report that was there")
        return "\n".join(lines)


def build_report(
    plan: Plan,
    sources: Sequence[Path],
    out: Path,
    local: Path,
    counts: Path | None,
    *,
    benchmarks: Path | None = None,
    data: Path | None = None,
    margin: float = EQUIVALENCE_MARGIN,
    at_least: int = 0,
) -> ReportSummary:
    """Write the report of a profile from the runs in `sources`; missing numbers are `pending`, damage is named.

    Args:
        plan: the plan of the profile.
        sources: folders searched for run folders; of several copies of a run the first complete one counts.
        out: folder of the tracked report; equal numbers give equal bytes, and an equal file is not touched.
        local: folder of this machine's page (seconds, hardware, commits, MLflow runs), which git ignores.
        counts: folder with the counts of the networks as CSV; None or an empty one leaves those `pending`.
        benchmarks: folder with the measured speed of the networks as CSV, one file for each kind of hardware.
        data: folder of the prepared data and noisy labels; their manifests say which runs' data have changed since,
            and how the labels were confused.
        margin: points of test error within which two errors count as equal.
        at_least: a report with fewer runs does not replace that in `out`: it is written below `local` instead.

    Raises:
        UserError: if there is a link in the place of one of its folders.
    """
    evidence = gather(plan, scan(sources), load_paper(), read_current_state(data))
    if len(evidence.finished) < at_least:
        out = local / INCOMPLETE
    for folder in (out, *(out / kind for kind in KINDS), local):
        refuse_link(folder)
    masks = find_masks(evidence)
    matrices, changed_labels = noise_matrices(evidence, data)
    counted = read_counts(counts)
    speeds, not_read = read_speeds(benchmarks)
    problems = (*evidence.problems, *changed_labels, *not_read)
    evidence = replace(evidence, problems=problems)
    tables, verdicts = build_tables(evidence, counted), judge(evidence, counted, margin)
    figures = draw(evidence, counted, masks, matrices)
    section = against_resnet200(evidence, counted, speeds)
    context = page(evidence, tables, verdicts, figures, margin)
    context["resnet200"] = section
    context["local_traces"] = Path(os.path.relpath(local, out), "traces.html").as_posix()
    files = _data_files(evidence, tables, verdicts, figures) | section_files(section)
    files |= {name: render(f"{name}.j2", context) for name in (PAGE, "report.html")}
    changed = (*_take_away(out, files), *_write(out, files))
    base = Path(os.path.relpath(out, local)).as_posix() + "/"
    machine = traces(evidence, tables, verdicts, machine=True)
    context |= {"machine": machine_page(evidence), "traces": machine, "base": base, "local_traces": ""}
    _write(local, {name: render(f"{name}.j2", context) for name in ("report.html", "traces.html")})
    return ReportSummary(
        profile=evidence.profile,
        runs_done=len(evidence.runs),
        runs_planned=len(plan.runs),
        verdicts=tally(verdicts),
        problems=tuple(printable(f"{problem.path}: {problem.reason}") for problem in evidence.problems),
        report=out / "report.html",
        changed=changed,
    )


def _data_files(
    evidence: Evidence, tables: Sequence[Table], verdicts: Sequence[Verdict], figures: Sequence[ReportFigure]
) -> dict[str, str | bytes]:
    """Everything but the pages: tables, figures, runs and the summary, by path in the report's folder."""
    files: dict[str, str | bytes] = {f"figures/{figure.file}": figure.data for figure in figures}
    for table in tables:
        files[f"tables/{table.paper.id}.csv"] = table_csv(table)
        files[f"tables/{table.paper.id}.tex"] = table_latex(table, evidence.plan.label.statement)
    files["claims.csv"] = claims_csv(verdicts)
    files["runs.csv"] = rounded_csv(*run_rows(evidence))
    for name, content in (
        (SUMMARY, summarise(evidence, tables, verdicts)),
        ("metrics.json", metrics(evidence, verdicts)),
    ):
        files[name] = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return files


def _write(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Write what is new or other than before; the paths written."""
    changed = []
    for name, content in files.items():
        path, data = folder / name, content.encode() if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
            changed.append(path)
    return changed


def _take_away(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Remove the tables and figures that the earlier report there names and this one does not have; their paths.

    Whatever else lies in these folders is the user's.
    """
    try:
        earlier = (folder / PAGE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    named = set(re.findall(rf"\b(?:{'|'.join(KINDS)})/[\w.-]+", earlier)) - files.keys()
    old = [folder / name for name in sorted(named) if (folder / name).is_file()]
    for path in old:
        path.unlink()
    return old


def build_index(reports: Path, profiles: Mapping[str, str] | None = None, leave_out: Sequence[str] = ()) -> None:
    """Write index.md, index.html and coverage.md over the reports of all profiles below `reports`.

    Reports with runs are ordered by their distance from the paper; each opens with its results. `profiles` are all that
    there are, each with its statement: those without runs take one line each. `leave_out` are profiles without results,
    which are not listed.
    """
    entries, problems = [], []
    for path in sorted(folder / SUMMARY for folder in reports.glob("*") if lexists(folder / SUMMARY)):
        if path.parent.name in leave_out:
            continue
        try:
            entries.append(Summary.read(path))
        except DamagedError as damage:
            problems.append((path.relative_to(reports).as_posix(), damage.reason))
    there = {entry.profile for entry in entries}
    pending = {name: statement for name, statement in (profiles or {}).items() if name not in there}
    pending |= {entry.profile: entry.statement for entry in entries if not entry.runs.finished}
    entries = sorted((entry for entry in entries if entry.runs.finished), key=_distance)
    keyed = (entry.profile for entry in entries if (reports / entry.profile / KEY_FIGURE).is_file())
    context = {
        "paper": load_paper(),
        "entries": entries,
        "pending": pending,
        "problems": problems,
        "key_profile": next(keyed, None),
        "key_figure": KEY_FIGURE,
    }
    covered, claimed = coverage.cells(load_paper(), entries), coverage.claims(load_paper(), entries)
    context |= {"cells": covered, "cell_shares": coverage.shares(covered)}
    context |= {"claims": claimed, "claim_shares": coverage.shares(claimed)}
    _write(reports, {name: render(f"{name}.j2", context) for name in ("index.md", "index.html", "coverage.md")})


def _distance(summary: Summary) -> tuple[bool, int, str]:
    """How far a report is from the paper: real data before stand-in data, longer schedules first."""
    return summary.standin, -summary.iterations, summary.profile
