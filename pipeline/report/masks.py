"""The masks that a run left for eight fixed test pictures, checked before anything is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.report.evidence import Evidence
from pipeline.report.records import Problem, Run
from pipeline.runs import arrays as run_arrays
from pipeline.runs.reading import DamagedError

PREFERRED = ("attention92", "attention56", "attention128", "attention164")
"""Whose masks are shown: the network of the paper's comparisons where it has run."""

PARTS = ("channel_before", "channel_mask", "channel_after")


@dataclass(frozen=True)
class Masks:
    """Pictures uint8 [n, H, W, 3] of a run, and by (stage, module) its feature before, mask and after [n, h, w]."""

    run: Run
    images: NDArray[np.uint8]
    modules: Mapping[tuple[int, int], Mapping[str, NDArray[np.float32]]]


def find_masks(evidence: Evidence) -> tuple[Masks | None, list[Problem]]:
    """Masks of the first attention network that has readable ones, and the damaged files met on the way."""
    problems: list[Problem] = []
    attention = [name for name in evidence.experiments if name.startswith("attention")]
    for experiment in dict.fromkeys((*PREFERRED, *attention)):
        for seed in evidence.seeds(experiment):
            run = evidence.runs.get(f"{experiment}-s{seed}")
            if run is None or not run.masks.is_file():
                continue
            try:
                return _read(run), problems
            except (KeyError, ValueError) as error:
                problem = error.reason if isinstance(error, DamagedError) else error
                reason = f"masks.npz cannot be read ({problem}); the run counts, without its masks"
                problems.append(Problem(run.shown, reason, run.name, run.identity, run.profile))
    return None, problems


def _read(run: Run) -> Masks:
    read = run_arrays.Masks.read(run.folder)
    places = sorted({(int(found[1]), int(found[2])) for found in map(run_arrays.MAP.fullmatch, read.maps) if found})
    modules = {
        (stage, module): {part: read.maps[f"s{stage}m{module}_{part}"].astype(np.float32) for part in PARTS}
        for stage, module in places
    }
    if not modules:
        raise ValueError("no masks in it")
    if not all(np.isfinite(part).all() for parts in modules.values() for part in parts.values()):
        raise ValueError("its masks hold values that are not finite")
    return Masks(run, read.images, modules)
