"""Plans made from settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import resolve_options
from pipeline.runs.spec import Crops, DataSpec, NetworkSpec, RunSpec
from pipeline.settings.counts import NetworkCounts
from pipeline.settings.plan import PASSES, Cost, Plan, PlannedRun
from pipeline.settings.tree import Config, Data, Experiment
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.arrays import Arrays
    from pipeline.data.shards import ImageShards

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
    read: dict[int, DataSpec] = {}  # by noise level: data are verified once for all experiments
    for name, experiment in config.experiments.items():
        if experiment.noise not in read:
            read[experiment.noise] = _data_spec(config.data, experiment.noise, data)
        first = _run_spec(config, name, config.seeds[0], read[experiment.noise])
        counts = None if known is None else _cost(first, known)
        for seed in config.seeds:
            content = replace(first, seed=seed).to_json()
            if data is None:
                del content["identity"], content["network"]["num_classes"]
                content["data"] = {key: content["data"][key] for key in KNOWN_WITHOUT_DATA if key in content["data"]}
            yield PlannedRun(content, counts)


def run_spec(config: Config, name: str, seed: int, data: Path | None) -> RunSpec:
    """Return one run of a profile: the experiment of that name with a seed, on the prepared data under `data`."""
    return _run_spec(config, name, seed, _data_spec(config.data, config.experiments[name].noise, data))


def _run_spec(config: Config, name: str, seed: int, dataset: DataSpec) -> RunSpec:
    experiment = config.experiments[name]
    crops = crops_of(config, experiment)
    if dataset.checksum and config.protocol.batch_size > dataset.train_images:
        raise UserError(
            f"protocol.batch_size = {config.protocol.batch_size}: must be at most {dataset.train_images},"
            f" the training images of {dataset.dataset}"
        )
    if dataset.checksum and crops:
        dataset = replace(dataset, image_size=crops.train)
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


def _data_spec(settings: Data, noise: int, data: Path | None) -> DataSpec:
    """Verify the data and describe them; without the data, checksums and sizes are empty."""
    from pipeline.data import DATASETS, ImageFolderSet, noisy_folder, prepared_folder
    from pipeline.data.arrays import load, read_manifest
    from pipeline.data.manifest import MANIFEST
    from pipeline.data.noise import noise_seed
    from pipeline.data.shards import open_image_shards

    dataset, draw = settings.name, settings.noise_draw if noise else 0
    if data is None:
        return DataSpec(
            dataset, noise, "", None, image_size=0, train_images=0, test_images=0, classes=(), noise_draw=draw
        )
    prepared, noisy = prepared_folder(data, dataset), noisy_folder(data, dataset, noise) if noise else None
    manifests = [read_manifest(folder) for folder in (prepared, noisy) if folder is not None]
    kind, noise_checksum = DATASETS[dataset], None
    found: ImageShards | Arrays
    if isinstance(kind, ImageFolderSet):
        found = open_image_shards(prepared)
        size, train, test = 0, len(found.train), len(found.test)
    else:
        if noisy and manifests[1].get("seed") != noise_seed(dataset, noise, draw):
            raise UserError(
                f"{noisy}: not draw {draw} of the noisy labels (data.noise_draw);"
                f" `python -m pipeline corrupt {dataset} {noise}` makes it"
            )
        found = load(prepared, noisy)
        if found.classes != kind.classes:
            raise UserError(f"{prepared / MANIFEST}: classes are not those of {dataset}; run prepare again")
        size, train, test = found.mean.shape[0], len(found.train_images), len(found.test_images)
        noise_checksum = found.noise_checksum
    return DataSpec(
        dataset=dataset,
        noise=noise,
        checksum=found.checksum,
        noise_checksum=noise_checksum,
        image_size=size,
        train_images=train,
        test_images=test,
        classes=found.classes,
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
