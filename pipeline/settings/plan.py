"""The plan: every run of a profile with its full configuration and identity, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import resolve_options
from pipeline.runs import spec as core
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, write_json

if TYPE_CHECKING:
    from pipeline.settings.config import Config, Experiment

PLAN = "plan.json"
# Passes over the network that one training image costs: forward, and backward to activations and to weights.
PASSES = 3


def run_specs(config: Config, data: Path) -> list[core.RunSpec]:
    """Every run of a profile: its experiments times its seeds, on the prepared data under `data`.

    Raises:
        UserError: if data are missing, or experiment and data do not fit.
    """
    return [
        _run_spec(config, name, experiment, seed, data)
        for name, experiment in config.experiments.items()
        for seed in config.seeds
    ]


def _run_spec(config: Config, name: str, experiment: Experiment, seed: int, data: Path) -> core.RunSpec:
    protocol = config.protocol.model_dump()
    crops = crops_of(config, experiment)
    dataset = _data_spec(config.data.name, experiment.noise, data, crops)
    if protocol["batch_size"] > dataset.train_images:
        raise UserError(
            f"protocol.batch_size = {protocol['batch_size']}: must be at most {dataset.train_images},"
            f" the training images of {dataset.dataset}"
        )
    return core.RunSpec(
        experiment=name,
        seed=seed,
        network=core.NetworkSpec(experiment.network, len(dataset.classes), own_options(experiment)),
        data=dataset,
        protocol=core.Protocol(**protocol),
        precision=config.precision,
        channels_last=config.channels_last,
        compile=config.compile,
        crops=crops,
    )


def own_options(experiment: Experiment) -> dict[str, Any]:
    """Options of an experiment that are not the network's own: one that is said to be so makes no other run."""
    defaults = resolve_options(experiment.network, {})
    given = experiment.options.model_dump(exclude_none=True)
    return {name: value for name, value in given.items() if value != getattr(defaults, name)}


def crops_of(config: Config, experiment: Experiment) -> core.Crops | None:
    """The crops of an experiment: the profile's, with what the experiment says otherwise."""
    if config.crops is None:
        return None
    own = {"train": experiment.train_crop, "test": experiment.test_crop}
    return core.Crops(**config.crops.model_dump() | {key: size for key, size in own.items() if size})


def _data_spec(dataset: str, noise: int, data: Path, crops: core.Crops | None) -> core.DataSpec:
    from pipeline.data import noisy_folder, prepared_folder
    from pipeline.data.arrays import read_manifest

    manifest = read_manifest(prepared_folder(data, dataset))
    noisy = read_manifest(noisy_folder(data, dataset, noise)) if noise else None
    return core.DataSpec(
        dataset=dataset,
        noise=noise,
        checksum=manifest["checksum"],
        noise_checksum=noisy["checksum"] if noisy else None,
        image_size=crops.train if crops else manifest["image_shape"][0],
        train_images=manifest["train_images"],
        test_images=manifest["test_images"],
        classes=tuple(manifest["classes"]),
    )


def build_plan(config: Config, data: Path) -> dict[str, Any]:
    """The content of ``plan.json``: identities apart from all else, so that a stage can depend on its own alone."""
    specs = run_specs(config, data)
    return {
        "profile": config.profile,
        "labels": config.label.model_dump(),
        "report": config.report.model_dump(),
        "execution": execution(config),
        "identity": {spec.name: spec.identity for spec in specs},
        "runs": {spec.name: {**spec.to_json(), "cost": _cost(spec)} for spec in specs},
    }


def execution(config: Config) -> dict[str, Any]:
    """How the runs of a profile are executed."""
    settings = config.model_dump(include={"store", "resources", "checkpoints", "tracking"})
    return {**settings, "remote": config.data.remote}


def _cost(spec: core.RunSpec) -> dict[str, int]:
    """Size of the network, and multiply-adds of the whole training."""
    from models.counting import count

    network = spec.network
    try:
        counts = count(network.name, network.num_classes, spec.data.image_size, **network.options)
    except ValueError as error:
        raise UserError(f"experiments.{spec.experiment}: {error}") from None
    images = spec.protocol.iterations * spec.protocol.batch_size
    return {
        "parameters": counts.parameters,
        "multiply_adds": counts.multiply_adds,
        "training_multiply_adds": PASSES * images * counts.multiply_adds,
    }


def write_plan(plan: Mapping[str, Any], path: Path = Path(PLAN)) -> None:
    """Write ``plan.json``."""
    write_json(path, plan)


def read_plan(path: Path = Path(PLAN)) -> dict[str, Any]:
    """Read ``plan.json``."""
    if not path.exists():
        raise UserError(f"{path}: no such file; run `python -m pipeline plan` (or `dvc repro plan`) first")
    plan = read_json(path)
    parts = [plan.get(key) for key in ("report", "execution", "identity", "runs")]
    if "profile" not in plan or not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{path}: not a plan; run `python -m pipeline plan` again")
    return plan


def find_run(plan: Mapping[str, Any], experiment: str, seed: int) -> core.RunSpec:
    """One run of a plan."""
    name = f"{experiment}-s{seed}"
    if name not in plan["runs"]:
        raise UserError(
            f"run {name!r}: not in the plan of profile {plan['profile']!r}, which has {', '.join(plan['runs'])}"
        )
    return planned_spec(plan, name)


def planned_spec(plan: Mapping[str, Any], name: str) -> core.RunSpec:
    """The configuration of a planned run, by its name ``<experiment>-s<seed>``."""
    return core.RunSpec.from_json(plan["runs"][name], f"{PLAN}: runs.{name}")
