"""Which run folder is which run of the plan: found by identity, else by a configuration that differs only in age."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.report.evidence import CHANGED_DATA, OLDER_CODE, CurrentState, Evidence
from pipeline.report.records import Problem, Run, Scan
from pipeline.settings.paper import Paper
from pipeline.settings.plan import Plan, PlannedRun
from pipeline.settings.planning import KNOWN_WITHOUT_DATA

_NOT_COMPARED = "identity"
_OF_DATA = ("data.checksum", "data.noise_checksum")
_KNOWN_FROM_DATA = ("network.num_classes", "data.")
"""What a plan that was made without the data does not say."""


def gather(plan: Plan, found: Scan, paper: Paper, current_state: CurrentState | None = None) -> Evidence:
    """Give each planned run the run folder of its identity, or an older one that differs only in code or data.

    The identities of a plan that was made without its data are None: then the configuration alone decides.
    """
    current_state = current_state or CurrentState()
    draws = {
        draw: _gather(_with_draw(plan, draw), found, paper, current_state, set()) for draw in _other_draws(plan, found)
    }
    used = {run.identity for other in draws.values() for run in other.finished.values()}
    return replace(_gather(plan, found, paper, current_state, used), other_draws=draws)


def _gather(plan: Plan, found: Scan, paper: Paper, current_state: CurrentState, used: set[str]) -> Evidence:
    """The evidence of one draw of the noisy labels; the runs of identities in `used` have their place already."""
    runs: dict[str, Run] = {}
    problems: list[Problem] = []
    by_name: dict[str, list[Run]] = defaultdict(list)
    for run in found.runs.values():
        by_name[run.name].append(run)
    for name, planned in plan.runs.items():
        exact = None if planned.identity is None else found.runs.get(planned.identity)
        changes = _changes(exact.config, planned.config) if exact is not None else []
        if exact is not None and planned.counts is not None and planned.counts.parameters != exact.metrics.parameters:
            reason = f"metrics.json: has {exact.metrics.parameters} parameters, the network {planned.counts.parameters}"
            problems.append(_as_problem(exact, reason))
            used.add(exact.identity)
            continue
        if exact is not None and changes:
            problems.append(_as_problem(exact, f"foreign: it has the plan's identity but another {changes[0]}"))
            used.add(exact.identity)
        chosen = exact if exact is not None and not changes else _alike(by_name[name], planned)
        if chosen is not None:
            runs[name] = chosen
            used.add(chosen.identity)
    published = _published_seeds(plan, by_name)
    used = used | {run.identity for run, _ in published.values()}
    marks = {name: _marks(run, plan.runs[name].config, current_state) for name, run in runs.items()}
    marks |= {name: _marks(run, alike.config, current_state) for name, (run, alike) in published.items()}
    others = [run for run in found.runs.values() if run.identity not in used]
    unmatched, unrelated = _unmatched(plan, others, runs)
    for problem in found.problems:
        (problems if _concerns(problem, plan, runs) else unrelated).append(problem)
    return Evidence(
        plan=plan,
        paper=paper,
        runs={name: replace(run, profile=plan.profile) for name, run in runs.items()},
        marks={name: found_marks for name, found_marks in marks.items() if found_marks},
        others=tuple(others),
        problems=(*problems, *unmatched),
        elsewhere=tuple(unrelated),
        current_state=current_state,
        published={name: run for name, (run, _) in published.items()},
    )


def _other_draws(plan: Plan, found: Scan) -> list[int]:
    """Draws of the noisy labels that runs of the plan's experiments have and the plan does not; none of such a plan."""
    noisy = {run.experiment: run.noise_draw for run in plan.runs.values() if run.noise}
    here = set(noisy.values())
    if len(here) != 1:  # no noisy runs, or those of another draw already
        return []
    draws = {
        run.noise_draw
        for run in found.runs.values()
        if run.noise and run.experiment in noisy and run.profile in (None, plan.profile)
    }
    return sorted(draws - here)


def _with_draw(plan: Plan, draw: int) -> Plan:
    """The noisy runs of a plan with another draw of their labels, whose checksums and identities are not known."""
    runs = {}
    for name, run in plan.runs.items():
        if run.noise:
            data = {key: value for key, value in run.config["data"].items() if key != "noise_checksum"}
            config = {key: value for key, value in run.config.items() if key != "identity"}
            runs[name] = PlannedRun(config | {"data": data | {"noise_draw": draw}}, run.counts)
    return replace(plan, runs=runs)


def _published_seeds(plan: Plan, by_name: Mapping[str, list[Run]]) -> dict[str, tuple[Run, PlannedRun]]:
    """The runs under published/ that are the plan's but for a seed that it does not have, each with what it is like."""
    found = {}
    for name, runs in by_name.items():
        published = [run for run in runs if run.published is not None and run.profile == plan.profile]
        if name in plan.runs or not published:
            continue
        for planned in plan.runs.values():
            if planned.experiment == published[0].experiment:
                config = {key: value for key, value in planned.config.items() if key != "identity"}
                alike = PlannedRun(config | {"seed": published[0].seed})
                if run := _alike(published, alike):
                    found[name] = run, alike
                break
    return found


def _alike(runs: list[Run], planned: PlannedRun) -> Run | None:
    """The newest run that is the planned one but for older code or other data; None where there is none."""
    usable, identity = [], planned.identity
    for run in runs:
        changes = set(_changes(run.config, planned.config))
        older = run.config["numerics"] <= planned.config["numerics"]
        # Of an equal configuration the identity would be equal, too: such a run is not what it says it is.
        if older and changes <= {"numerics", *_OF_DATA} and run.identity != identity and (changes or identity is None):
            usable.append((run.config["numerics"], -len(changes), run.identity, run))
    return max(usable, key=lambda entry: entry[:3])[-1] if usable else None


def _changes(ours: Mapping[str, Any], planned: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys, with dots, in which a run's configuration differs from the planned one."""
    changes = []
    for key in sorted(ours.keys() | planned.keys()):
        if not prefix and key == _NOT_COMPARED:
            continue
        if key not in planned and f"{prefix}{key}".startswith(_KNOWN_FROM_DATA) and key not in KNOWN_WITHOUT_DATA:
            continue
        first, second = ours.get(key), planned.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            changes += _changes(first, second, f"{prefix}{key}.")
        elif first != second:
            changes.append(prefix + key)
    return changes


def _marks(run: Run, planned: Mapping[str, Any], current_state: CurrentState) -> tuple[str, ...]:
    """What is to be said of a run: by the plan, and by the code and the data of today."""
    marks = current_state.marks(run)
    for key in _changes(run.config, planned):
        marks.add(OLDER_CODE if key == "numerics" else CHANGED_DATA)
    return tuple(sorted(marks))


def _unmatched(plan: Plan, others: list[Run], runs: Mapping[str, Run]) -> tuple[list[Problem], list[Problem]]:
    """Complete runs that are not in the plan: those that somebody may miss here, and the others."""
    here: list[Problem] = []
    elsewhere: list[Problem] = []
    for run in others:
        planned = plan.runs.get(run.name)
        if planned is None:
            reason = "foreign: the plan has no such run"
        else:
            changes = _changes(run.config, planned.config)
            reason = f"foreign: it differs from the plan in {', '.join(changes) or 'identity'}"
        problem = _as_problem(run, reason)
        (here if _concerns(problem, plan, runs) else elsewhere).append(problem)
    return here, elsewhere


def _as_problem(run: Run, reason: str) -> Problem:
    return Problem(run.shown, reason, run.name, run.identity, run.profile)


def _concerns(problem: Problem, plan: Plan, runs: Mapping[str, Run]) -> bool:
    """Whether a problem is named in the profile's tracked report.

    It is not when it is another profile's, nor when it is an old or stray run beside one that the report has.
    """
    if problem.profile not in (None, plan.profile):
        return False
    if problem.run is None or problem.run not in runs:
        return True
    return problem.identity in (None, plan.runs[problem.run].identity, runs[problem.run].identity)
