"""Training and test data of a run: arrays on the device, or shards of encoded images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pipeline.data.arrays import load
from pipeline.data.remote import ensure_local
from pipeline.data.shards import open_image_shards
from pipeline.runs.execution import Execution
from pipeline.runs.spec import RunSpec
from pipeline.training.batches import Stream, TestImages, TrainingStream
from pipeline.training.evaluation import TestSet
from pipeline.training.image_batches import ImageStream, ImageTestSet
from pipeline.training.session import Session
from pipeline.utils.errors import UserError


def open_inputs(spec: RunSpec, execution: Execution, session: Session) -> tuple[Stream, TestImages]:
    """Open the training batches of a worker and the test images; UserError if the data are not those of the run."""
    kind = _arrays if spec.crops is None else _images
    return kind(spec, execution, session)


def _arrays(spec: RunSpec, execution: Execution, session: Session) -> tuple[Stream, TestImages]:
    arrays, protocol = load(execution.prepared, execution.noisy), spec.protocol
    _check(spec, execution, arrays.checksum, arrays.noise_checksum)
    stream = TrainingStream(
        arrays.train_images,
        arrays.train_labels,
        arrays.mean,
        seed=spec.seed,
        batch_size=protocol.batch_size,
        padding=protocol.padding,
        flip=protocol.flip,
        rank=session.rank,
        world_size=session.world_size,
        device=session.device,
        channels_last=spec.channels_last,
    )
    return stream, TestSet(arrays.test_images, arrays.test_labels, arrays.mean, session.device)


def _images(spec: RunSpec, execution: Execution, session: Session) -> tuple[Stream, TestImages]:
    found = ensure_local(execution.prepared, spec.data.dataset, spec.data.checksum, execution.remote)
    images, protocol = open_image_shards(found), spec.protocol
    _check(spec, execution, images.checksum, None)
    assert spec.crops is not None
    pool = ThreadPoolExecutor(execution.threads, thread_name_prefix="decode")
    stream = ImageStream(
        images,
        seed=spec.seed,
        batch_size=protocol.batch_size,
        crop=spec.crops.train,
        flip=protocol.flip,
        colour=spec.crops.colour,
        iterations=protocol.iterations,
        pool=pool,
        decoder=spec.crops.decoder,
        rank=session.rank,
        world_size=session.world_size,
        device=session.device,
        channels_last=spec.channels_last,
    )
    return stream, ImageTestSet(images, spec.crops.test, pool, session.device, spec.crops.decoder)


def _check(spec: RunSpec, execution: Execution, checksum: str, noise_checksum: str | None) -> None:
    """Refuse data whose checksums are not those of the run's configuration."""
    found = {"checksum": checksum, "noise_checksum": noise_checksum}
    for key, value in found.items():
        wanted = getattr(spec.data, key)
        if value != wanted:
            raise UserError(
                f"{execution.noisy if key == 'noise_checksum' else execution.prepared}: {key} = {value!r} is not"
                f" {wanted!r}, the data of run {spec.name}; run `python -m pipeline plan` again"
            )
