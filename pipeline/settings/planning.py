"""Plans made from settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from models import resolve_options
from pipeline.runs.spec import Crops, DataSpec, NetworkSpec, RunSpec
from pipeline.settings.counts import NetworkCounts
from pipeline.settings.plan import PASSES, Cost, Plan, PlannedRun
from pipeline.settings.tree import Config, Data, Experiment
from pipeline.utils.errors import UserError

KNOWN_WITHOUT_DATA = ("dataset", "noise", "noise_draw")  # of the data of a run


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
    known = None if data is None else NetworkCounts(data)
    for name in config.experiments:
        first = run_spec(config, name, config.seeds[0], data)
        counts = None if known is None else _cost(first, known)
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


def _cost(spec: RunSpec, known: NetworkCounts) -> Cost:
    """Return the size of a run's network, and the multiply-adds of its training."""
    try:
        counts = known.of(spec.network, spec.data.image_size)
    except ValueError as error:
        raise UserError(f"experiments.{spec.experiment}: {error}") from None
    images = spec.protocol.iterations * spec.protocol.batch_size
    return Cost(counts.parameters, counts.multiply_adds, PASSES * images * counts.multiply_adds)
