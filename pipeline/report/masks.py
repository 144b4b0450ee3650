"""The masks that a run left for eight fixed test pictures, checked before anything is drawn from them."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.report.evidence import Evidence
from pipeline.report.records import Problem, Run

PREFERRED = ("attention92", "attention56", "attention128", "attention164")
"""Whose masks are shown: the network of the paper's comparisons where it has run."""

PARTS = ("channel_before", "channel_mask", "channel_after")
_ERRORS = (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a damaged archive can raise on being read."""


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
            except _ERRORS as error:
                reason = f"masks.npz cannot be read ({error}); the run counts, without its masks"
                problems.append(Problem(run.shown, reason, run.name, run.identity, run.profile))
    return None, problems


def _read(run: Run) -> Masks:
    with np.load(Path(run.masks), allow_pickle=False) as file:
        images = file["images"]
        found = [re.fullmatch(r"s(\d+)m(\d+)_channel_mask", name) for name in file.files]
        places = sorted((int(match[1]), int(match[2])) for match in found if match)
        modules = {
            (stage, module): {part: file[f"s{stage}m{module}_{part}"].astype(np.float32) for part in PARTS}
            for stage, module in places
        }
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size or not modules:
        raise ValueError("no pictures with masks in it")
    maps = [part for parts in modules.values() for part in parts.values()]
    if any(part.ndim != 3 or len(part) != len(images) or not part.size for part in maps):
        raise ValueError("its masks do not fit its pictures")
    if not all(np.isfinite(part).all() for part in maps):
        raise ValueError("its masks hold values that are no numbers")
    return Masks(run, images, modules)
