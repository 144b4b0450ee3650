"""The masks that a run left for eight fixed test images, checked before anything is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.report.evidence import Evidence
from pipeline.report.records import Run
from pipeline.runs import arrays as run_arrays
from pipeline.runs.reading import DamagedError

PREFERRED = ("attention92", "attention56", "attention128", "attention164")
"""Whose masks are shown: the network of the paper's comparisons where it has run."""

PARTS = ("channel_before", "channel_mask", "channel_after")


@dataclass(frozen=True)
class Masks:
    """Images uint8 [n, H, W, 3] of a run, and by (stage, module) its feature before, mask and after [n, h, w]."""

    run: Run
    images: NDArray[np.uint8]
    modules: Mapping[tuple[int, int], Mapping[str, NDArray[np.float32]]]


def find_masks(evidence: Evidence) -> Masks | None:
    """Masks of the first attention network that has readable and finite ones."""
    attention = [name for name in evidence.experiments if name.startswith("attention")]
    for experiment in dict.fromkeys((*PREFERRED, *attention)):
        for seed in evidence.seeds(experiment):
            run = evidence.runs.get(f"{experiment}-s{seed}")
            if run is not None and (masks := _read(run)):
                return masks
    return None


def _read(run: Run) -> Masks | None:
    """The masks of a run; None where they are damaged, which is a note of the run, or not finite."""
    try:
        read = run_arrays.Masks.read(run.folder)
    except DamagedError:
        return None
    places = sorted({(int(found[1]), int(found[2])) for found in map(run_arrays.MAP.fullmatch, read.maps) if found})
    modules = {
        (stage, module): {part: read.maps[f"s{stage}m{module}_{part}"].astype(np.float32) for part in PARTS}
        for stage, module in places
        if all(f"s{stage}m{module}_{part}" in read.maps for part in PARTS)
    }
    return Masks(run, read.images, modules) if modules and read.are_finite else None
