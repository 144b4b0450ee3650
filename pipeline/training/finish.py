"""What a run leaves behind at its end: weights, responses, masks, mistakes, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from models.counting import count_model
from models.weights import save_weights
from pipeline.runs.arrays import write_arrays, write_mistakes
from pipeline.runs.records import MASKS, WEIGHTS, Metrics, Position
from pipeline.runs.spec import RunSpec
from pipeline.training.batches import TestImages
from pipeline.training.evaluation import attention_maps, last_pass


class DivergedError(RuntimeError):
    """The loss, or what the finished network computes, is not finite."""


def finish(
    spec: RunSpec,
    folder: Path,
    model: nn.Module,
    test: TestImages,
    position: Position,
    autocast: Callable[[], Any],
) -> Metrics:
    """Write a trained run's files, all but ``metrics.json``, whose content is returned.

    Raises:
        DivergedError: if responses or masks are not finite, although every loss was.
    """
    network = spec.network
    weights_sha256 = save_weights(
        model,
        folder / WEIGHTS,
        name=network.name,
        num_classes=network.num_classes,
        options=dict(network.options),
        classes=spec.data.classes,
        normalisation=test.normalisation,
    )
    responses, wrong = last_pass(model, test, autocast)
    masks = attention_maps(model, test, autocast)
    if not responses.are_finite or not all(np.isfinite(array).all() for array in masks.values()):
        raise DivergedError(f"{spec.name}: diverged, its responses or attention masks are not finite")
    responses.write(folder)
    write_mistakes(folder, wrong)
    write_arrays(folder / MASKS, masks)
    counts = count_model(model, spec.data.image_size)  # not of a copy on the meta device: that imports the compiler
    last, best = position.history[-1], min(position.history, key=lambda row: (row.test_error, row.iteration))
    return Metrics(
        test_error=last.test_error,
        test_loss=last.test_loss,
        top5_error=last.top5_error,
        train_error=last.train_error,
        train_loss=last.train_loss,
        best_test_error=best.test_error,
        best_epoch=best.epoch,
        iterations=last.iteration,
        epochs=last.epoch,
        parameters=counts.parameters,
        multiply_adds=counts.multiply_adds,
        test_images=len(test),
        weights_sha256=weights_sha256,
    )
