"""The plan: every run of a profile with its configuration and identity, and what it will cost.

It is read on machines that only train, too, which have no pydantic: nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pipeline.runs.execution import Checkpoints, Resources
from pipeline.runs.reading import parse
from pipeline.runs.spec import Configured, Crops, NoiseDraw, Protocol, RunSpec
from pipeline.utils.errors import UserError, shown
from pipeline.utils.files import read_json, write_json
from pipeline.utils.limits import Ge, Gt, Le, Len

MOST = 10**30  # of a count: any real one is far below, and a float can hold it
PARAMS = "params.yaml"  # what a plan is made from
PLAN = "plan.json"
# Passes over the network that one training image costs: forward, and backward to activations and to weights.
PASSES = 3


@dataclass(frozen=True)
class Label:
    """How results of a profile are introduced wherever they are shown."""

    standin: bool
    schedule: Literal["full", "short"]
    statement: Annotated[str, Len(1, 1000)]


@dataclass(frozen=True)
class Tracking:
    """What is logged to MLflow."""

    enabled: bool
    models: Literal["none", "best", "all"]
    system_metrics: bool


@dataclass(frozen=True)
class Report:
    """Settings of the report."""

    equivalence_margin: Annotated[float, Gt(0), Le(100)]


@dataclass(frozen=True)
class Cost:
    """Size of a network, and the multiply-adds of one image and of the complete training."""

    parameters: Annotated[int, Ge(0), Le(MOST)]
    multiply_adds: Annotated[int, Ge(0), Le(MOST)]
    training_multiply_adds: Annotated[int, Ge(0), Le(MOST)]


@dataclass(frozen=True)
class PlannedRun(Configured):
    """One run of a plan.

    Attributes:
        config: the content of the run's ``config.json``. In a plan that was made without the data it lacks what depends
            on them: number of classes, sizes, checksums and identity.
        counts: what the run costs; None in a plan that was made without the data.
    """

    config: Mapping[str, Any]
    counts: Cost | None = None

    @property
    def identity(self) -> str | None:
        """Identity of the run; None in a plan that was made without the data."""
        return self.config.get("identity")

    @cached_property
    def spec(self) -> RunSpec:
        """The configuration of the run, checked.

        Raises:
            UserError: if the plan was made without the data, or was changed by hand.
        """
        return RunSpec.from_json(self.config, f"{PLAN}: runs.{self.name}")

    @property
    def cost(self) -> Cost:
        """What the run costs; UserError in a plan that was made without the data."""
        if self.counts is None:
            raise UserError(f"{self.name}: its cost depends on the data; run `python -m pipeline plan` first")
        return self.counts


@dataclass(frozen=True)
class Plan:
    """Every run of a profile by name, and how the runs are executed, tracked and reported."""

    profile: str
    label: Label
    report: Report
    resources: Resources
    checkpoints: Checkpoints
    store: str
    tracking: Tracking
    remote: str | None
    runs: Mapping[str, PlannedRun]

    def run(self, experiment: str, seed: int) -> PlannedRun:
        """Return one run; UserError if the plan does not have it."""
        name = f"{experiment}-s{seed}"
        if name not in self.runs:
            raise UserError(
                f"run {name!r}: not in the plan of profile {self.profile!r}, which has {', '.join(self.runs)}"
            )
        return self.runs[name]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``plan.json``, with identities apart so that a stage can depend on its own alone."""
        return {
            "profile": self.profile,
            "labels": asdict(self.label),
            "report": asdict(self.report),
            "execution": {
                "resources": asdict(self.resources),
                "checkpoints": asdict(self.checkpoints),
                "store": self.store,
                "tracking": asdict(self.tracking),
                "remote": self.remote,
            },
            "identity": {name: run.identity for name, run in self.runs.items()},
            "runs": {
                name: {**run.config, **({"cost": asdict(run.counts)} if run.counts else {})}
                for name, run in self.runs.items()
            },
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row for each run: name, identity, experiment, network, noise in percent, seed, and its costs."""
        return [
            {
                "run": name,
                "identity": run.identity,
                "experiment": run.experiment,
                "network": run.config["network"]["name"],
                "options": run.config["network"]["options"],
                "noise": run.config["data"].get("noise", 0),
                "seed": run.seed,
                **(asdict(run.counts) if run.counts else {}),
            }
            for name, run in self.runs.items()
        ]

    def write(self, path: Path = Path(PLAN)) -> None:
        """Write ``plan.json``."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path = Path(PLAN)) -> Plan:
        """Read ``plan.json``.

        Raises:
            UserError: if there is none, or it is damaged or of an older version; one line that names the key.
        """
        if not path.exists():
            raise UserError(f"{path}: no such file; run `python -m pipeline plan` (or `dvc repro plan`) first")
        try:
            return cls.from_json(read_json(path), str(path))
        except UserError as error:
            raise UserError(f"{error}; `python -m pipeline plan` writes it anew") from None

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str = PLAN) -> Plan:
        """Return the plan that `to_json` gave; UserError for anything else."""
        file = _typed(content, source)
        runs = {
            name: PlannedRun({key: value for key, value in run.items() if key != "cost"}, file.runs[name].cost)
            for name, run in content["runs"].items()
        }
        return cls(
            profile=file.profile,
            label=file.labels,
            report=file.report,
            resources=file.execution.resources,
            checkpoints=file.execution.checkpoints,
            store=file.execution.store,
            tracking=file.execution.tracking,
            remote=file.execution.remote,
            runs=runs,
        )


def _typed(content: Mapping[str, Any], source: str) -> _File:
    """Return the content of a ``plan.json``, checked; a machine without pydantic takes it as it is."""
    try:
        from pipeline.settings.places import free_place, simple_name
        from pipeline.settings.reading import check
    except ModuleNotFoundError as error:
        if error.name not in ("pydantic", "yaml"):
            raise
        return parse(_File, content, Path(source))
    file = check(_File, content, source)
    names = {"profile": file.profile}
    for name, run in file.runs.items():
        names |= {f"runs.{name}.experiment": run.experiment, f"runs.{name}.network.name": run.network.name}
        names |= {f"runs.{name}.data.dataset": run.data.dataset}
    checks = [(key, value, simple_name) for key, value in names.items()]
    for key, value, check_value in [*checks, ("execution.store", file.execution.store, free_place)]:
        try:
            check_value(value)
        except ValueError as error:
            raise UserError(f"{source}: {key} = {shown(value)}: {error}") from None
    if file.identity.keys() != file.runs.keys():
        raise UserError(f"{source}: identity: must have the names of runs, and no others")
    for name, run in file.runs.items():
        identity = content["runs"][name].get("identity")
        if f"{run.experiment}-s{run.seed}" != name or file.identity.get(name) != identity:
            raise UserError(f"{source}: runs.{name}: is not the run of that name and identity")
    return file


# What is checked of a file, by pydantic's names for its configuration.
_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
_PART = _STRICT | {"extra": "ignore"}  # of a run: the keys that a plan without the data has, too


@dataclass(frozen=True)
class _Network:
    name: str
    options: dict[str, Any]

    __pydantic_config__: ClassVar = _PART


@dataclass(frozen=True)
class _Data:
    dataset: str
    noise: Annotated[int, Ge(0), Le(99)] = 0
    noise_draw: NoiseDraw = 0

    __pydantic_config__: ClassVar = _PART


@dataclass(frozen=True)
class _Run:
    experiment: str
    seed: int
    network: _Network
    data: _Data
    protocol: Protocol
    numerics: int
    crops: Crops | None = None
    cost: Cost | None = None

    __pydantic_config__: ClassVar = _PART


@dataclass(frozen=True)
class _Execution:
    resources: Resources
    checkpoints: Checkpoints
    store: Annotated[str, Len(1, 4096)]
    tracking: Tracking
    remote: str | None = None  # a plan of a version before there were remotes has none

    __pydantic_config__: ClassVar = _STRICT


@dataclass(frozen=True)
class _File:
    profile: str
    labels: Label
    report: Report
    execution: _Execution
    identity: dict[str, str | None]
    runs: Annotated[dict[str, _Run], Len(1)]

    __pydantic_config__: ClassVar = _STRICT
