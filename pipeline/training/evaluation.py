"""Test error over every image exactly once, and what a finished run shows of itself (Figures 1 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.attention import attention_outputs
from models.staged import stages_of
from pipeline.runs.records import Responses, Sums
from pipeline.training.batches import TestImages, normalise, on_device
from pipeline.training.session import Session
from pipeline.training.tally import Tally

BATCH = 250
MAPPED_IMAGES = 8


class TestSet:
    """The test images on the device, untouched but for normalisation (paper: the original image is tested)."""

    has_top5 = False

    def __init__(self, images: np.ndarray, labels: np.ndarray, mean: np.ndarray, device: torch.device) -> None:
        self.images = on_device(images, device)
        self.labels = on_device(labels, device).long()
        self.mean = on_device(mean, device)

    @property
    def normalisation(self) -> dict[str, Any]:
        """See `TestImages`: the mean image is subtracted, and nothing divided."""
        return {"image_size": len(self.mean), "crop_pct": 1.0, "mean": self.mean.tolist(), "std": [1.0, 1.0, 1.0]}

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, which: slice) -> tuple[Tensor, Tensor]:
        """Images float32 [B, C, H, W] in channels_last, labels int64 [B]."""
        return normalise(self.images[which], self.mean).permute(0, 3, 1, 2), self.labels[which]

    def batches(self, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images `first` ... `end` - 1, some at a time."""
        for start in range(first, end, BATCH):
            yield self.batch(slice(start, min(start + BATCH, end)))

    def first_images(self, count: int) -> Tensor:
        """The first images, uint8 [count, H, W, C]."""
        return self.images[:count]


@torch.no_grad()
def evaluate(model: nn.Module, test: TestImages, session: Session, autocast: Callable[[], Any]) -> Sums:
    """Sums over the whole test set, which the workers share without padding: each image counts exactly once."""
    model.eval()
    tally = Tally(session.device, top5=test.has_top5)
    first = session.rank * len(test) // session.world_size
    end = (session.rank + 1) * len(test) // session.world_size
    for images, labels in test.batches(first, end):
        with autocast():
            logits = model(images)
        tally.add(logits.float(), labels)
    model.train()
    sums = tally.read(session)
    assert sums.images == len(test), f"{sums.images} of {len(test)} test images were counted"
    return sums


@torch.no_grad()
def last_pass(model: nn.Module, test: TestImages, autocast: Callable[[], Any]) -> tuple[Responses, NDArray[np.bool_]]:
    """Run the finished network over the test set once more, on this worker alone.

    Returns:
        The mean absolute response of the output of each stage (paper, Figure 4), and which images it gets wrong, bool
        [N]. A stage's output is that of its last residual unit, before batch norm and ReLU (the paper does not say
        which).
    """
    stages = stages_of(model)
    sums = [torch.zeros((), dtype=torch.float64) for _ in stages]

    def add(index: int, output: Tensor) -> None:
        sums[index] += output.float().abs().mean((1, 2, 3)).double().sum().cpu()

    hooks = [
        stage.register_forward_hook(lambda _module, _input, output, index=index: add(index, output))
        for index, stage in enumerate(stages)
    ]
    try:
        model.eval()
        wrong = []
        for images, labels in test.batches(0, len(test)):
            with autocast():
                logits = model(images)
            wrong.append((logits.float().argmax(1) != labels).cpu())
    finally:
        for hook in hooks:
            hook.remove()
    means = tuple((value / len(test)).item() for value in sums)
    return Responses(means, tuple(mean / means[0] for mean in means)), torch.cat(wrong).numpy()


@torch.no_grad()
def attention_maps(model: nn.Module, test: TestImages, autocast: Callable[[], Any]) -> dict[str, np.ndarray]:
    """Masks, trunk features and fused features of the first eight test images, by attention module.

    For each module: the mask averaged over channels, and mask, trunk feature and module output of the one channel
    whose mask varies most over the positions (compare Figure 1 of the paper). All float16 [8, h, w].
    """
    model.eval()
    images, labels = next(test.batches(0, min(MAPPED_IMAGES, len(test))))
    with attention_outputs(model, "trunk", "mask", "fusion") as captured, autocast():
        predictions = model(images).argmax(1)
    arrays = {"images": test.first_images(len(labels)), "labels": labels, "predictions": predictions}
    for name in dict.fromkeys(key.partition("/")[0] for key in captured):
        mask, trunk, fused = (captured[f"{name}/{part}"].float() for part in ("mask", "trunk", "fusion"))
        channel = int(mask.var((2, 3)).mean(0).argmax())
        arrays[f"{name}_mask"] = _half(mask.mean(1))
        arrays[f"{name}_channel_mask"] = _half(mask[:, channel])
        arrays[f"{name}_channel_before"] = _half(trunk[:, channel])
        arrays[f"{name}_channel_after"] = _half(fused[:, channel])
    return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}


def _half(features: Tensor) -> Tensor:
    """Features as float16; finite ones beyond its range become its largest number."""
    limit = torch.finfo(torch.float16).max
    return torch.where(features.isfinite(), features.clamp(-limit, limit), features).half()
