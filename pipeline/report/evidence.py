"""Which runs stand behind a number: those of the plan, found by identity, and what must be said about them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipeline.report.paper import Paper, deviations
from pipeline.report.records import Problem, Run, Scan
from pipeline.report.statistics import Estimate, binomial_error, estimate

OLDER_CODE = "older training code"
CHANGED_DATA = "data has changed since"
MARKS = {OLDER_CODE: "†", CHANGED_DATA: "‡"}
"""What a marked number has against it, and its sign in the tables."""

_NOT_COMPARED = ("identity", "cost")


@dataclass(frozen=True)
class Sample:
    """One quantity of one experiment over its seeds. `planned` is None for runs of another profile's plan."""

    experiment: str
    quantity: str
    values: Mapping[int, float]
    runs: tuple[Run, ...]
    planned: int | None
    marks: tuple[str, ...] = ()

    @property
    def estimate(self) -> Estimate | None:
        """Mean and interval over the seeds, None while nothing ran."""
        return estimate([self.values[seed] for seed in sorted(self.values)]) if self.values else None

    @property
    def binomial_error(self) -> float | None:
        """Standard error of a single run's error over its test images; None with more seeds or other quantities."""
        if len(self.values) != 1 or not self.quantity.endswith("_error"):
            return None
        return binomial_error(next(iter(self.values.values())), int(self.runs[0].metrics["test_images"]))

    @property
    def seeds(self) -> str:
        """`2 of 5 seeds`, `3 seeds` (of a plan not known here), or `not planned`."""
        n = len(self.values)
        if self.planned == 0:
            return "not planned"
        if self.planned is None:
            return f"{n} seed{'' if n == 1 else 's'}"
        return f"{n} of {self.planned} seed{'' if self.planned == 1 else 's'}"


@dataclass(frozen=True)
class Evidence:
    """The runs of one profile's plan, those of all other profiles, and what could not be used."""

    plan: Mapping[str, Any]
    paper: Paper
    runs: Mapping[str, Run]
    marks: Mapping[str, tuple[str, ...]]
    others: tuple[Run, ...]
    problems: tuple[Problem, ...]
    elsewhere: tuple[Problem, ...] = field(default=())

    @property
    def profile(self) -> str:
        """Name of the report's profile."""
        return str(self.plan["profile"])

    @cached_property
    def is_reproduction(self) -> bool:
        """Whether the plan trains the paper's data by the paper's schedule; if not, nothing here reproduces it."""
        labels = self.plan["labels"]
        return (
            not labels["standin"]
            and labels["schedule"] == "full"
            and not any(deviations(config, self.paper) for config in self.plan["runs"].values())
        )

    @cached_property
    def has_cifar_networks(self) -> bool:
        """Whether the plan trains the paper's CIFAR networks; those for ImageNet share their names."""
        return any(config["network"]["name"].startswith("cifar_") for config in self.plan["runs"].values())

    @cached_property
    def datasets(self) -> list[str]:
        """Data sets of the plan, by name."""
        return sorted({config["data"]["dataset"] for config in self.plan["runs"].values()})

    @cached_property
    def _seeds(self) -> dict[str, list[int]]:
        seeds: dict[str, list[int]] = {}
        for config in self.plan["runs"].values():
            seeds.setdefault(config["experiment"], []).append(config["seed"])
        return seeds

    @property
    def experiments(self) -> list[str]:
        """Experiments of the plan, in its order."""
        return list(self._seeds)

    def seeds(self, experiment: str) -> list[int]:
        """Seeds that the plan wants for an experiment."""
        return sorted(self._seeds.get(experiment, ()))

    def status(self, experiment: str, seed: int) -> str:
        """`done`, `marked`, `damaged`, `unfinished` or `pending`."""
        name = f"{experiment}-s{seed}"
        if name in self.runs:
            return "marked" if self.marks.get(name) else "done"
        reasons = [problem.reason for problem in self.problems if problem.run == name]
        if any(reason.startswith("unfinished") for reason in reasons):
            return "unfinished"
        return "damaged" if reasons else "pending"

    def sample(self, experiment: str, quantity: str, stage: int | None = None) -> Sample:
        """A quantity of this profile's runs of an experiment."""
        planned = self.seeds(experiment)
        names = [f"{experiment}-s{seed}" for seed in planned]
        runs = [self.runs[name] for name in names if name in self.runs]
        marks = {mark for name in names for mark in self.marks.get(name, ())}
        return _sample(experiment, quantity, stage, runs, len(planned), marks)

    def sample_of(self, dataset: str, experiment: str, quantity: str) -> Sample:
        """A quantity of an experiment on a data set: of this profile where it plans that, else of any other
        profile whose runs follow the paper's protocol."""
        if dataset in self.datasets and self.seeds(experiment):
            return self.sample(experiment, quantity)
        alike: dict[str, dict[int, Run]] = defaultdict(dict)
        for run in self.others:
            wanted = (run.dataset, run.config["experiment"]) == (dataset, experiment)
            if wanted and not run.config["data"].get("noise") and not deviations(run.config, self.paper):
                alike[_but_for_the_seed(run)][run.seed] = run
        chosen = max(alike.values(), key=_rank, default={})
        return _sample(experiment, quantity, None, [chosen[seed] for seed in sorted(chosen)], None, set())


def _but_for_the_seed(run: Run) -> str:
    """What runs must share to stand in one mean."""
    return json.dumps({k: v for k, v in run.config.items() if k not in ("identity", "seed")}, sort_keys=True)


def _rank(runs: Mapping[int, Run]) -> tuple[int, int, str]:
    """Of several groups of runs the newest code counts, then the most seeds; the rest only settles ties."""
    any_run = next(iter(runs.values()))
    return int(any_run.config["numerics"]), len(runs), min(run.identity for run in runs.values())


def _sample(
    experiment: str, quantity: str, stage: int | None, runs: list[Run], planned: int | None, marks: set[str]
) -> Sample:
    values, used = {}, []
    for run in runs:
        value = _quantity(run, quantity, stage)
        if value is not None:
            values[run.seed] = value
            used.append(run)
    return Sample(experiment, quantity, values, tuple(used), planned, tuple(sorted(marks)))


def _quantity(run: Run, quantity: str, stage: int | None) -> float | None:
    if quantity != "response":
        value = run.metrics.get(quantity)
        return None if value is None else float(value)
    if run.relative_responses is None or stage is None or stage > len(run.relative_responses):
        return None
    return run.relative_responses[stage - 1]


def gather(plan: Mapping[str, Any], found: Scan, paper: Paper) -> Evidence:
    """Give each planned run the run folder of its identity, or an older one that differs only in code or data."""
    runs: dict[str, Run] = {}
    marks: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    by_name: dict[str, list[Run]] = defaultdict(list)
    for run in found.runs.values():
        by_name[run.name].append(run)
    used = set()
    for name, config in plan["runs"].items():
        exact = found.runs.get(plan["identity"][name])
        if exact is not None:
            used.add(exact.identity)
            changes = _changes(exact.config, config)
            if not changes:
                runs[name] = exact
                continue
            problems.append(_as_problem(exact, f"foreign: it has the plan's identity but another {changes[0]}"))
        older = [(run, _marks(run.config, config)) for run in by_name[name]]
        usable = [(run, found_marks) for run, found_marks in older if found_marks]
        if usable:
            newest = max(usable, key=lambda pair: (pair[0].config["numerics"], -len(pair[1])))
            runs[name], marks[name] = newest
            used.add(runs[name].identity)
    others = [run for run in found.runs.values() if run.identity not in used]
    strangers, unrelated = _strangers(plan, others, runs)
    for problem in found.problems:
        (problems if _concerns(problem, plan, runs) else unrelated).append(problem)
    runs = {name: replace(run, profile=plan["profile"]) for name, run in runs.items()}
    return Evidence(plan, paper, runs, marks, tuple(others), (*problems, *strangers), tuple(unrelated))


def _changes(ours: Mapping[str, Any], planned: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys, with dots, in which a run's configuration differs from the planned one."""
    changes = []
    for key in sorted(ours.keys() | planned.keys()):
        if not prefix and key in _NOT_COMPARED:
            continue
        first, second = ours.get(key), planned.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            changes += _changes(first, second, f"{prefix}{key}.")
        elif first != second:
            changes.append(prefix + key)
    return changes


def _marks(ours: Mapping[str, Any], planned: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be said of a run that is the planned one but for older code or other data; empty for any other."""
    marks = set()
    for key in _changes(ours, planned):
        if key == "numerics" and ours["numerics"] < planned["numerics"]:
            marks.add(OLDER_CODE)
        elif key in ("data.checksum", "data.noise_checksum"):
            marks.add(CHANGED_DATA)
        else:
            return ()
    return tuple(sorted(marks))


def _strangers(
    plan: Mapping[str, Any], others: list[Run], runs: Mapping[str, Run]
) -> tuple[list[Problem], list[Problem]]:
    """Whole runs that the plan has no place for: those that somebody may miss here, and all the rest."""
    here: list[Problem] = []
    elsewhere: list[Problem] = []
    for run in others:
        planned = plan["runs"].get(run.name)
        if planned is None:
            reason = "foreign: the plan has no such run"
        else:
            changes = _changes(run.config, planned)
            reason = f"foreign: it differs from the plan in {', '.join(changes) or 'identity'}"
        problem = _as_problem(run, reason)
        (here if _concerns(problem, plan, runs) else elsewhere).append(problem)
    return here, elsewhere


def _as_problem(run: Run, reason: str) -> Problem:
    return Problem(run.shown, reason, run.name, run.identity, run.profile)


def _concerns(problem: Problem, plan: Mapping[str, Any], runs: Mapping[str, Run]) -> bool:
    """Whether a problem is named in the profile's tracked report: not when it is another profile's, nor when
    it is an old or stray run beside one that the report has."""
    if problem.profile not in (None, plan["profile"]):
        return False
    if problem.run in runs:
        return bool(problem.identity == plan["identity"][problem.run])
    return True
