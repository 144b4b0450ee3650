"""Run folders as the training core writes them, with made-up numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.runs.records import (
    CONFIG,
    HISTORY,
    MASKS,
    METRICS,
    RESPONSES,
    TIMING,
    Evaluation,
    Provenance,
    Segment,
    Timing,
    write_rows,
)
from pipeline.runs.spec import DataSpec, NetworkSpec, RunSpec
from pipeline.utils.files import write_json
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
    store: Path, spec: RunSpec, epochs: int = EPOCHS, status: str = "finished", profile: str = "digits"
) -> Path:
    """The folder of a run after some of its epochs; with all of its small files when it is finished."""
    folder = store / spec.folder_name
    iterations = [EPOCH * epoch for epoch in range(1, epochs + 1)]
    history = [Evaluation(i / EPOCH, i, 0.1, 2 / i, 80 / i, 2.5 / i, 90 / i + spec.seed) for i in iterations]
    write_json(folder / CONFIG, spec.to_json())
    write_rows(folder / HISTORY, Evaluation, history)
    write_rows(folder / TIMING, Timing, [Timing(i / EPOCH, i, i / 2, 128.0) for i in iterations])
    Provenance(status, profile, (make_segment(0, iterations[-1]),) if iterations else ()).write(folder)
    if status == "finished":
        _finish(folder, history[-1])
    return folder


def _finish(folder: Path, last: Evaluation) -> None:
    metrics = {"test_error": last.test_error, "best_test_error": last.test_error, "iterations": EPOCHS * EPOCH}
    write_json(folder / METRICS, metrics | {"parameters": 1030362, "weights_sha256": "ef" * 32})
    write_json(folder / RESPONSES, {"stages": [1.0, 0.5, 0.25], "relative": [1, 0.5, 0.25]})
    pictures = np.arange(8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype(np.uint8)
    mask = np.linspace(0, 1, 8 * 16 * 16, dtype=np.float16).reshape(8, 16, 16)
    np.savez(folder / MASKS, images=pictures, s1m1_mask=mask, s2m1_mask=mask[:, ::2, ::2], s1m1_channel_mask=mask)
