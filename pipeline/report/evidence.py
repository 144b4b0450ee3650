"""The runs behind numbers, samples of their quantities over seeds, and what is to be said against a run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pipeline.data.noise import noise_seed
from pipeline.report.records import Problem, Run
from pipeline.runs.spec import NUMERICS
from pipeline.settings.paper import Paper, deviations
from pipeline.settings.plan import Plan
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json
from pipeline.utils.statistics import Estimate, binomial_error, estimate, prediction_interval, slope

T = TypeVar("T")

OLDER_CODE = "older training code"
CHANGED_DATA = "data has changed since"
MOVED = "moved between classes of hardware, threads or versions"
INFERRED = "the structure of the network is inferred, in whole or in part"
AT_CHANCE = "a run no better than guessing"
DIVERGED = "a run that has diverged: its responses or masks are not finite"
MIXED = "runs on different hardware, threads or versions"
MARKS = {OLDER_CODE: "†", CHANGED_DATA: "‡", INFERRED: "§", MOVED: "¶", AT_CHANCE: "‖", MIXED: "#", DIVERGED: "††"}
"""What a marked number has against it, and its sign in the tables."""


@dataclass(frozen=True)
class CurrentState:
    """The version of the training arithmetic, and checksums of the data sets that are prepared here.

    `noise` is by data set, level and seed of the draw. A data set that is not here says nothing about any run.
    """

    numerics: int = NUMERICS
    data: Mapping[str, str] = field(default_factory=dict)
    noise: Mapping[tuple[str, int, int], str] = field(default_factory=dict)

    def marks(self, run: Run) -> set[str]:
        """What is to be said of a run today, by what is tracked of it: the same in every checkout."""
        data = run.config["data"]
        marks = {OLDER_CODE} if run.config["numerics"] < self.numerics else set()
        if run.is_at_chance:
            marks.add(AT_CHANCE)
        if run.has_diverged:
            marks.add(DIVERGED)
        if run.published is not None and run.published.provenance.was_moved:
            marks.add(MOVED)
        same = self.data.get(data["dataset"], data["checksum"]) == data["checksum"]
        labels = data.get("noise_checksum")
        dataset, level, draw = data["dataset"], data.get("noise") or 0, data.get("noise_draw", 0)
        if not same or self.noise.get((dataset, level, noise_seed(dataset, level, draw)), labels) != labels:
            marks.add(CHANGED_DATA)
        return marks


def read_current_state(data: Path | None) -> CurrentState:
    """The current state: the code that runs, and the manifests below `data` (None: nothing is known of data)."""
    if data is None:
        return CurrentState()
    prepared = {path.parent.name: _known(path, "checksum", str) for path in data.glob("prepared/*/manifest.json")}
    noisy = {
        (path.parent.parent.name, int(path.parent.name), _known(path, "seed", int)): _known(path, "checksum", str)
        for path in data.glob("noisy/*/*/manifest.json")
        if path.parent.name.isdecimal()
    }
    return CurrentState(
        data={dataset: checksum for dataset, checksum in prepared.items() if checksum},
        noise={
            (name, level, seed or noise_seed(name, level)): sha for (name, level, seed), sha in noisy.items() if sha
        },
    )


def _known(manifest: Path, key: str, kind: type[T]) -> T | None:
    """A value of a manifest; None where it cannot be read: then nothing is held against any run."""
    try:
        value = read_json(manifest).get(key)
    except (UserError, OSError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


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
    def diverged(self) -> tuple[str, ...]:
        """Its runs that have diverged."""
        return tuple(run.name for run in self.runs if run.has_diverged)

    @property
    def at_chance(self) -> tuple[str, ...]:
        """Its runs that are no better than guessing, each with its error."""
        return tuple(f"{run.name} ({run.metrics.test_error:.2f} %)" for run in self.runs if run.is_at_chance)

    @property
    def prediction(self) -> tuple[float, float] | None:
        """Where one more seed is expected with 95 % probability, by the seeds under published/; None below two."""
        interval = prediction_interval([self.values[run.seed] for run in self.runs if run.published is not None])
        if interval is None or not self.quantity.endswith("_error"):
            return interval
        return max(0.0, interval[0]), min(100.0, interval[1])

    @property
    def estimate(self) -> Estimate | None:
        """Mean and interval over the seeds, None while nothing ran."""
        return estimate([self.values[seed] for seed in sorted(self.values)]) if self.values else None

    @property
    def binomial_error(self) -> float | None:
        """Standard error of a single run's error over its test images; None with more seeds or other quantities."""
        if len(self.values) != 1 or not self.quantity.endswith("_error"):
            return None
        return binomial_error(next(iter(self.values.values())), self.runs[0].metrics.test_images)

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
    """The runs of one profile's plan, those of all other profiles, and what could not be used.

    Attributes:
        runs: those of the plan, by name.
        marks: what is to be said against runs of `runs` and `published`, by name.
        published: runs under published/ that are the plan's but for their seed, by name; they count like planned ones.
        others: all other finished runs.
        elsewhere: problems that concern other profiles.
        other_draws: the same of the noisy experiments with other draws of the noisy labels, by number of the draw.
    """

    plan: Plan
    paper: Paper
    runs: Mapping[str, Run]
    marks: Mapping[str, tuple[str, ...]]
    others: tuple[Run, ...]
    problems: tuple[Problem, ...]
    elsewhere: tuple[Problem, ...] = ()
    current_state: CurrentState = field(default_factory=CurrentState)
    published: Mapping[str, Run] = field(default_factory=dict)
    other_draws: Mapping[int, Evidence] = field(default_factory=dict)

    @property
    def profile(self) -> str:
        """Name of the report's profile."""
        return self.plan.profile

    @cached_property
    def deviations(self) -> tuple[str, ...]:
        """Settings in which a planned or finished run differs from the paper's run of that name."""
        configs = [*(run.config for run in self.plan.runs.values()), *(run.config for run in self.runs.values())]
        return tuple(dict.fromkeys(key for config in configs for key in deviations(config, self.paper)))

    @cached_property
    def is_reproduction(self) -> bool:
        """Whether the plan trains the paper's networks on its data by its schedule; if not, nothing here reproduces it.

        What the profile says of itself is not enough: the configuration of every run is checked.
        """
        label = self.plan.label
        return not label.standin and label.schedule == "full" and not self.deviations

    @cached_property
    def has_cifar_networks(self) -> bool:
        """Whether the plan trains the paper's CIFAR networks; those for ImageNet share their names."""
        return any(run.network.startswith("cifar_") for run in self.plan.runs.values())

    @cached_property
    def datasets(self) -> list[str]:
        """Data sets of the plan, by name."""
        return sorted({run.dataset for run in self.plan.runs.values()})

    @cached_property
    def _seeds(self) -> dict[str, list[int]]:
        seeds: dict[str, list[int]] = {}
        for run in self.plan.runs.values():
            seeds.setdefault(run.experiment, []).append(run.seed)
        return seeds

    @cached_property
    def finished(self) -> dict[str, Run]:
        """The finished runs of the plan and its published seeds, by name: experiments in the plan's order."""
        found = {**self.runs, **self.published}
        place = {experiment: index for index, experiment in enumerate(self.experiments)}
        return dict(sorted(found.items(), key=lambda item: (place[item[1].experiment], item[1].seed)))

    @property
    def experiments(self) -> list[str]:
        """Experiments of the plan, in its order."""
        return list(self._seeds)

    @cached_property
    def own_experiments(self) -> list[str]:
        """Experiments of the plan that the paper does not have."""
        known = {name for protocol in self.paper.protocols.values() for name in protocol.experiments}
        return [name for name in self.experiments if name not in known]

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
        names = [f"{experiment}-s{seed}" for seed in sorted(self._expected_seeds(experiment))]
        runs = [self.finished[name] for name in names if name in self.finished]
        marks = {mark for name in names for mark in self.marks.get(name, ())}
        return _sample(experiment, quantity, stage, runs, len(names), marks)

    def _expected_seeds(self, experiment: str) -> set[int]:
        """Seeds that the plan wants for an experiment, and those that are published."""
        return {*self.seeds(experiment), *(run.seed for run in self.published.values() if run.experiment == experiment)}

    def slopes(self, experiments: Mapping[int, str]) -> Sample:
        """Slope of the test error over the noise level (experiments by level), for each seed that has all levels."""
        levels = {level: self.sample(name, "test_error") for level, name in experiments.items()}
        seeds = sorted(set.intersection(*(set(sample.values) for sample in levels.values())))
        return Sample(
            experiment=", ".join(experiments.values()),
            quantity="slope",
            values={seed: slope(list(levels), [s.values[seed] for s in levels.values()]) for seed in seeds},
            runs=tuple(run for sample in levels.values() for run in sample.runs if run.seed in seeds),
            planned=len(set.intersection(*(self._expected_seeds(name) for name in experiments.values()))),
            marks=tuple(sorted({mark for sample in levels.values() for mark in sample.marks})),
        )

    def sample_of(self, dataset: str, experiment: str, quantity: str) -> Sample:
        """Return a quantity of an experiment on a data set over its seeds.

        The runs are those of this profile where it plans the experiment, else those of any other profile that follow
        the paper's protocol.
        """
        if dataset in self.datasets and self.seeds(experiment):
            return self.sample(experiment, quantity)
        alike: dict[str, dict[int, Run]] = defaultdict(dict)
        for run in self.others:
            wanted = (run.dataset, run.config["experiment"]) == (dataset, experiment)
            if wanted and not run.config["data"].get("noise") and not deviations(run.config, self.paper):
                alike[_but_for_the_seed(run)][run.seed] = run
        chosen = max(alike.values(), key=_rank, default={})
        marks = {mark for run in chosen.values() for mark in self.current_state.marks(run)}
        return _sample(experiment, quantity, None, [chosen[seed] for seed in sorted(chosen)], None, marks)


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
    known = [provenance for run in used if (provenance := run.tracked_provenance)]
    if len({place for provenance in known for place in provenance.surroundings}) > 1:
        marks = marks | {MIXED}
    return Sample(experiment, quantity, values, tuple(used), planned, tuple(sorted(marks)))


def _quantity(run: Run, quantity: str, stage: int | None) -> float | None:
    if quantity != "response":
        value = getattr(run.metrics, quantity, None)
        return None if value is None else float(value)
    if run.relative_responses is None or stage is None or stage > len(run.relative_responses):
        return None
    return run.relative_responses[stage - 1]
