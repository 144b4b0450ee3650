"""The plan: every run of a profile with its configuration and identity, and what it will cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import ConfigDict

from models import resolve_options
from pipeline.runs.execution import Checkpoints, Resources
from pipeline.runs.spec import Configured, Crops, DataSpec, NetworkSpec, NoiseDraw, Protocol, RunSpec
from pipeline.settings.reading import Settings, check
from pipeline.settings.tree import Config, Data, Experiment, Label, Name, Report, Tracking
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, write_json

PLAN = "plan.json"
KNOWN_WITHOUT_DATA = ("dataset", "noise", "noise_draw")  # of the data of a run
# Passes over the network that one training image costs: forward, and backward to activations and to weights.
PASSES = 3


@dataclass(frozen=True)
class Cost:
    """Size of a network, and the multiply-adds of one image and of the complete training."""

    parameters: int
    multiply_adds: int
    training_multiply_adds: int


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
            "labels": self.label.model_dump(),
            "report": self.report.model_dump(),
            "execution": {
                "resources": asdict(self.resources),
                "checkpoints": asdict(self.checkpoints),
                "store": self.store,
                "tracking": self.tracking.model_dump(),
                "remote": self.remote,
            },
            "identity": {name: run.identity for name, run in self.runs.items()},
            "runs": {
                name: {**run.config, **({"cost": asdict(run.counts)} if run.counts else {})}
                for name, run in self.runs.items()
            },
        }

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
        file = check(_File, content, source)
        for name, run in file.runs.items():
            identity = content["runs"][name].get("identity")
            if f"{run.experiment}-s{run.seed}" != name or file.identity.get(name) != identity:
                raise UserError(f"{source}: runs.{name}: is not the run of that name and identity")
        runs = {
            name: PlannedRun({key: value for key, value in config.items() if key != "cost"}, file.runs[name].cost)
            for name, config in content["runs"].items()
        }
        execution = file.execution
        return cls(
            profile=file.profile,
            label=file.labels,
            report=file.report,
            resources=execution.resources,
            checkpoints=execution.checkpoints,
            store=execution.store,
            tracking=execution.tracking,
            remote=execution.remote,
            runs=runs,
        )


class _Execution(Settings):
    resources: Resources
    checkpoints: Checkpoints
    store: str
    tracking: Tracking
    remote: str | None = None  # a plan of a version before there were remotes has none


class _Part(Settings):
    """A part of a run's configuration; only the keys that a plan without the data has are checked here."""

    model_config = ConfigDict(extra="ignore")


class _Network(_Part):
    name: Name
    options: dict[str, Any]


class _Data(_Part):
    dataset: Name
    noise: Annotated[int, Ge(0), Le(99)] = 0
    noise_draw: NoiseDraw = 0


class _Run(_Part):
    experiment: Name
    seed: int
    network: _Network
    data: _Data
    protocol: Protocol
    crops: Crops | None = None
    numerics: int
    cost: Cost | None = None


class _File(Settings):
    profile: Name
    labels: Label
    report: Report
    execution: _Execution
    identity: dict[str, str | None]
    runs: dict[str, _Run]


def build_plan(config: Config, data: Path | None) -> Plan:
    """Build the plan of a profile.

    Args:
        config: the settings of the profile.
        data: the folder of the prepared data. None gives a plan that leaves open what depends on the data: checksums,
            sizes, and so identities and costs. It is enough for a report.

    Raises:
        UserError: if data are missing, or experiment and data do not fit.
    """
    return Plan(
        profile=config.profile,
        label=config.label,
        report=config.report,
        resources=config.resources,
        checkpoints=config.checkpoints,
        store=config.store,
        tracking=config.tracking,
        remote=config.data.remote,
        runs={run.name: run for run in _runs(config, data)},
    )


def _runs(config: Config, data: Path | None) -> Iterator[PlannedRun]:
    for name in config.experiments:
        first = run_spec(config, name, config.seeds[0], data)
        counts = None if data is None else _cost(first)
        for seed in config.seeds:
            content = replace(first, seed=seed).to_json()
            if data is None:
                del content["identity"], content["network"]["num_classes"]
                content["data"] = {key: content["data"][key] for key in KNOWN_WITHOUT_DATA if key in content["data"]}
            yield PlannedRun(content, counts)


def run_spec(config: Config, name: str, seed: int, data: Path | None) -> RunSpec:
    """Return one run of a profile: the experiment of that name with a seed, on the prepared data under `data`."""
    experiment = config.experiments[name]
    crops = crops_of(config, experiment)
    dataset = _data_spec(config.data, experiment.noise, data, crops)
    if data is not None and config.protocol.batch_size > dataset.train_images:
        raise UserError(
            f"protocol.batch_size = {config.protocol.batch_size}: must be at most {dataset.train_images},"
            f" the training images of {dataset.dataset}"
        )
    return RunSpec(
        experiment=name,
        seed=seed,
        network=NetworkSpec(experiment.network, len(dataset.classes), own_options(experiment)),
        data=dataset,
        protocol=config.protocol,
        precision=config.precision,
        channels_last=config.channels_last,
        compile=config.compile,
        crops=crops,
    )


def own_options(experiment: Experiment) -> dict[str, Any]:
    """Return the options that differ from the network's defaults: naming a default does not make another run."""
    defaults = resolve_options(experiment.network, {})
    given = experiment.options.model_dump(exclude_none=True)
    return {name: value for name, value in given.items() if value != getattr(defaults, name)}


def crops_of(config: Config, experiment: Experiment) -> Crops | None:
    """Return the crops of an experiment: its own sizes, and the profile's for the rest."""
    if config.crops is None:
        return None
    train, test = experiment.train_crop or config.crops.train, experiment.test_crop or config.crops.test
    return replace(config.crops, train=train, test=test)


def _data_spec(settings: Data, noise: int, data: Path | None, crops: Crops | None) -> DataSpec:
    """Read the manifests of the data; without the data, checksums and sizes are empty."""
    dataset, draw = settings.name, settings.noise_draw if noise else 0
    if data is None:
        return DataSpec(
            dataset, noise, "", None, image_size=0, train_images=0, test_images=0, classes=(), noise_draw=draw
        )
    from pipeline.data import noisy_folder, prepared_folder
    from pipeline.data.arrays import read_manifest
    from pipeline.data.noise import noise_seed

    manifest = read_manifest(prepared_folder(data, dataset))
    noisy = read_manifest(noisy_folder(data, dataset, noise)) if noise else None
    if noisy and noisy.get("seed") != noise_seed(dataset, noise, draw):
        raise UserError(
            f"{noisy_folder(data, dataset, noise)}: not draw {draw} of the noisy labels (data.noise_draw);"
            f" `python -m pipeline corrupt {dataset} {noise}` makes it"
        )
    return DataSpec(
        dataset=dataset,
        noise=noise,
        checksum=manifest["checksum"],
        noise_checksum=noisy["checksum"] if noisy else None,
        image_size=crops.train if crops else manifest["image_shape"][0],
        train_images=manifest["train_images"],
        test_images=manifest["test_images"],
        classes=tuple(manifest["classes"]),
        noise_draw=draw,
    )


def _cost(spec: RunSpec) -> Cost:
    """Count the network of a run, and the multiply-adds of its training."""
    from models.counting import count

    network = spec.network
    try:
        counts = count(network.name, network.num_classes, spec.data.image_size, **network.options)
    except ValueError as error:
        raise UserError(f"experiments.{spec.experiment}: {error}") from None
    images = spec.protocol.iterations * spec.protocol.batch_size
    return Cost(counts.parameters, counts.multiply_adds, PASSES * images * counts.multiply_adds)
