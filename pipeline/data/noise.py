"""Noisy training labels, as in Table 5 of arXiv:1704.06904.

Each training label is redrawn once: it is kept with probability 1 - level and becomes each of the other classes
with probability level / (classes - 1). The draw belongs to the data, not to a run: all training seeds share it, and
`data.noise_draw` chooses another. Test labels stay clean.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import confusion_counts, load, write_arrays
from pipeline.utils.errors import UserError

_BITS = 32  # of randomness in each decision


def check_level(level: int) -> None:
    """Raise UserError unless `level` is a whole percentage from 1 to 99."""
    if type(level) is not int or not 1 <= level <= 99:
        raise UserError(f"noise level {level!r}: allowed are whole percentages from 1 to 99")


def corrupt_labels(dataset: str, level: int, prepared: Path, noisy: Path, draw: int = 0) -> dict[str, Any]:
    """Write the noisy labels of a prepared data set into `noisy`; return the manifest."""
    check_level(level)
    arrays = load(prepared)
    seed = noise_seed(dataset, level, draw)
    labels = redraw(arrays.train_labels, len(arrays.classes), level, seed)
    flipped = labels != arrays.train_labels
    about = {
        "dataset": dataset,
        "level": level,
        "classes": list(arrays.classes),
        "seed": seed,
        "flipped": int(flipped.sum()),
        "matrix": confusion_counts(arrays.train_labels, labels, len(arrays.classes)).tolist(),
        "base_checksum": arrays.checksum,
    }
    return write_arrays(noisy, {"labels": labels, "flipped": flipped}, about)


def noise_seed(dataset: str, level: int, draw: int = 0) -> int:
    """Return the seed of a draw, below 2**63; draws of all data sets, levels and numbers are independent."""
    name = f"label noise/{dataset}/{level}" + (f"/{draw}" if draw else "")
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def redraw(labels: NDArray[np.int64], classes: int, level: int, seed: int) -> NDArray[np.int64]:
    """Redraw each label, int64 [N], for a noise level in percent.

    Only the raw bits of PCG64, whose stream NumPy guarantees, and integer arithmetic are used, so that the labels are
    the same on every machine and with every version.
    """
    bits = np.random.PCG64(seed).random_raw(2 * len(labels)) >> np.uint64(64 - _BITS)
    chance, choice = bits.astype(np.int64).reshape(2, -1)
    flips = 100 * chance < (level << _BITS)
    shift = 1 + ((choice * (classes - 1)) >> _BITS)  # from 1 to classes - 1: never the label itself
    return np.where(flips, (labels + shift) % classes, labels)
