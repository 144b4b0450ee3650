"""Named random number generators: every random number is a function of (seed, purpose, index) alone."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator of its own for one purpose.

    Args:
        seed: seed of the run.
        purpose: what the numbers are for, e.g. ``"order"`` or ``"crop"``.
        index: epoch or step, where the purpose recurs.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
