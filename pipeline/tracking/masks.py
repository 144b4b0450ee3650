"""A run's attention masks as one picture."""

from __future__ import annotations

from pathlib import Path

from pipeline.runs.mask_figure import mask_figure


def draw_masks(source: Path, target: Path) -> None:
    """Write a PNG from `masks.npz`: a row for each test image, with the image under the mask of each module."""
    import numpy as np

    with np.load(source, allow_pickle=False) as arrays:
        masks = {name.removesuffix("_mask"): arrays[name] for name in arrays.files if _is_mask(name)}
        mask_figure(arrays["images"], masks).save(target)


def _is_mask(name: str) -> bool:
    return name.endswith("_mask") and not name.endswith("_channel_mask")
