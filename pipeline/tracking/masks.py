"""A run's attention masks as one picture."""

from __future__ import annotations

from pathlib import Path

from pipeline.runs.arrays import Masks
from pipeline.runs.mask_figure import mask_figure


def draw_masks(folder: Path, target: Path) -> None:
    """Write a PNG of a run's masks: a row for each test image, with the image under the mask of each module."""
    read = Masks.read(folder)
    masks = {name.removesuffix("_mask"): maps for name, maps in read.maps.items() if _is_mask(name)}
    mask_figure(read.images, masks).save(target)


def _is_mask(name: str) -> bool:
    return name.endswith("_mask") and not name.endswith("_channel_mask")
