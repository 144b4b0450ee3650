"""Run folders as the training core writes them, with made-up numbers."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.runs.arrays import write_arrays, write_mistakes
from pipeline.runs.reading import write_checksums
from pipeline.runs.records import (
    CONFIG,
    DETERMINISTIC,
    HISTORY,
    MACHINE,
    MASKS,
    METRICS,
    TIMING,
    WEIGHTS,
    Evaluation,
    Metrics,
    Provenance,
    Responses,
    Segment,
    Status,
    Timing,
    write_rows,
)
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from pipeline.utils.files import json_bytes, write_json
from tests.plans import make_protocol

EPOCHS, EPOCH = 3, 20  # a run of three epochs of twenty iterations each


def make_spec(experiment: str = "attention56", seed: int = 0, noise: int = 0) -> RunSpec:
    """A run on the digits."""
    return RunSpec(
        experiment=experiment,
        seed=seed,
        network=NetworkSpec("cifar_attention56", 10, {"learning": "arl"}),
        data=DataSpec("digits", noise, "ab" * 32, "cd" * 32 if noise else None, 16, 1280, 360, tuple("0123456789")),
        protocol=make_protocol(iterations=EPOCHS * EPOCH, batch_size=64, milestones=(24, 36)),
    )


def make_segment(start: int, end: int) -> Segment:
    """A segment of a run that began at ten o'clock, half a second an iteration."""
    return Segment(
        from_iteration=start,
        to_iteration=end,
        started="2026-03-01T10:00:00+00:00",
        seconds=(end - start) / 2,
        images_per_second=128.0,
        hostname="node1",
        device="cpu: Example",
        threads=1,
        workers=1,
        versions={"python": "3.11.7", "torch": "2.11.0"},
        commit="c0ffee",
        dirty=False,
        command="python -m pipeline launch",
    )


def write_run(
    store: Path,
    spec: RunSpec,
    epochs: int = EPOCHS,
    status: Status = "finished",
    profile: str = "digits",
    *,
    error: float | None = None,
    weights: bytes | None = b"weights",
    name: str | None = None,
) -> Path:
    """The folder of a run after some of its epochs; with all of its files when it is finished.

    Args:
        error: test error of the last evaluation, in percent.
        weights: content of the file of weights; None for no such file.
        name: of the folder; that of the run, if None.
    """
    folder = store / (name or spec.folder_name)
    iterations = [EPOCH * epoch for epoch in range(1, epochs + 1)]
    history = [Evaluation(i / EPOCH, i, 0.1, 2 / i, 80 / i, 2.5 / i, 90 / i + spec.seed) for i in iterations]
    if status == "finished":
        history[-1] = replace(history[-1], iteration=spec.protocol.iterations)
    if error is not None:
        history[-1] = replace(history[-1], test_error=error)
    write_json(folder / CONFIG, spec.to_json())
    write_rows(folder / HISTORY, Evaluation, history)
    write_rows(folder / TIMING, Timing, [Timing(i / EPOCH, i, i / 2, 128.0) for i in iterations])
    Provenance(status, profile, (make_segment(0, iterations[-1]),) if iterations else ()).write(folder)
    if status == "finished":
        _finish(folder, history, weights, spec.data.test_images)
    return folder


def _finish(folder: Path, history: Sequence[Evaluation], weights: bytes | None, test_images: int) -> None:
    """Leave what a run leaves at its end, in the order of the training loop."""
    last = history[-1]
    if weights is not None:
        (folder / WEIGHTS).write_bytes(weights)
    Responses((1.0, 0.5, 0.25), (1.0, 0.5, 0.25)).write(folder)
    pictures = np.arange(8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype(np.uint8)
    mask = np.linspace(0, 1, 8 * 16 * 16, dtype=np.float16).reshape(8, 16, 16)
    maps = {"s1m1_mask": mask, "s2m1_mask": mask[:, ::2, ::2], "s1m1_channel_mask": mask}
    write_arrays(folder / MASKS, {"images": pictures, **maps})
    write_mistakes(folder, np.arange(test_images) % 30 == 0)
    metrics = Metrics(
        test_error=last.test_error,
        test_loss=last.test_loss,
        train_error=last.train_error,
        train_loss=last.train_loss,
        best_test_error=min(row.test_error for row in history),
        best_epoch=last.epoch,
        iterations=last.iteration,
        epochs=last.epoch,
        parameters=1030362,
        multiply_adds=122825216,
        test_images=test_images,
        weights_sha256=hashlib.sha256(weights or b"").hexdigest(),
    )
    content = {METRICS: json_bytes(metrics.to_json())}
    write_checksums(folder, (*DETERMINISTIC, *MACHINE, WEIGHTS), content)
    metrics.write(folder)


def write_trained_run(store: Path, seed: int, test_error: float = 5.0) -> Path:
    """Write the files of a finished run with the weights of a real network."""
    import torch

    from models import create_model
    from models.weights import save_weights

    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(seed)
        network = create_model("cifar_attention56", num_classes=10)
        save_weights(network, Path(scratch, "weights"), name="cifar_attention56", num_classes=10)
        return write_run(store, make_spec(seed=seed), error=test_error, weights=Path(scratch, "weights").read_bytes())
