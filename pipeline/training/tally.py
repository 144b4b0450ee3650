"""Exact sums of losses and errors on the device.

Losses are summed as fixed-point integers, so that a sum depends neither on the order of its terms, nor on the number
of workers, nor on where a run was interrupted; and no step waits for the device.
"""

from __future__ import annotations

from dataclasses import astuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.runs.records import UNITS, Sums
from pipeline.training.session import Session, total

LARGEST = 2.0**22
"""A finite loss counts as this much at most, so that the images of ImageNet fit into a sum of 64 bits. (Test losses of
millions occur in the first steps, while the running statistics of batch norm are still far off.)"""


class Tally:
    """Sums of one worker, on its device; `top5` counts the top-5 error, too."""

    def __init__(self, device: torch.device, *, top5: bool = False) -> None:
        self._sums = torch.zeros(5, dtype=torch.int64, device=device)
        self._top5 = top5

    def add(self, logits: Tensor, labels: Tensor, losses: Tensor | None = None) -> None:
        """Count a batch: logits [B, classes], labels [B], and their losses [B] if they are known."""
        logits = logits.detach()
        if losses is None:
            losses = F.cross_entropy(logits, labels, reduction="none")
        finite = losses.isfinite()
        units = losses.detach().double().clamp(max=LARGEST) * UNITS
        loss = torch.where(finite, units, 0).round().long().sum()
        wrong = (logits.argmax(1) != labels).sum()
        wrong_top5 = _beaten_by_five(logits, labels) if self._top5 else torch.zeros_like(wrong)
        self._sums += torch.stack([loss, wrong, torch.full_like(wrong, len(labels)), (~finite).sum(), wrong_top5])

    def read(self, session: Session) -> Sums:
        """The sums over all workers; every worker must call it. Waits for the device."""
        return Sums(*total(session, self._sums))

    def set(self, sums: Sums, session: Session) -> None:
        """Start from these sums of all workers."""
        values = astuple(sums) if session.rank == 0 else astuple(Sums())
        self._sums.copy_(torch.tensor(values))


def _beaten_by_five(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images have five classes, or more, that score higher than their own; no order of equals matters."""
    higher = logits > logits.gather(1, labels[:, None])
    return (higher.sum(1) >= 5).sum()
