"""Where the data of each stage lie below the data folder `root`."""

from __future__ import annotations

from pathlib import Path


def raw_folder(root: str | Path, dataset: str) -> Path:
    """What `fetch` wrote."""
    return Path(root) / "raw" / dataset


def prepared_folder(root: str | Path, dataset: str) -> Path:
    """The arrays that `prepare` wrote."""
    return Path(root) / "prepared" / dataset


def noisy_folder(root: str | Path, dataset: str, level: int) -> Path:
    """The labels that `corrupt` wrote for a noise level in percent."""
    return Path(root) / "noisy" / dataset / str(level)
