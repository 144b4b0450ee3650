from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pipeline.runs.records import Sums
from pipeline.training.session import LocalSession
from pipeline.training.tally import Tally


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(50, 10, generator=generator) * 3, torch.randint(10, (50,), generator=generator)


def tally_of(seeds: list[int]) -> Sums:
    tally, session = Tally(torch.device("cpu")), LocalSession()
    for seed in seeds:
        tally.add(*batch(seed))
    return tally.read(session)


def test_sums_do_not_depend_on_the_order_of_batches() -> None:
    assert tally_of([1, 2, 3]) == tally_of([3, 1, 2])


def test_sums_go_on_where_they_were_interrupted() -> None:
    tally, session = Tally(torch.device("cpu")), LocalSession()
    tally.set(tally_of([1, 2]), session)
    tally.add(*batch(3))
    assert tally.read(session) == tally_of([1, 2, 3])


def test_mean_loss_and_error_are_those_of_the_images() -> None:
    logits, labels = batch(1)
    sums = tally_of([1])
    assert abs(sums.mean_loss - F.cross_entropy(logits, labels).item()) < 1e-6
    assert sums.error == 100 * (logits.argmax(1) != labels).double().mean().item()


def test_losses_that_are_no_numbers_are_counted() -> None:
    tally = Tally(torch.device("cpu"))
    logits, labels = batch(1)
    logits[7] = float("nan")
    tally.add(logits, labels)
    assert tally.read(LocalSession()).not_finite == 1


@pytest.mark.parametrize(("loss", "counted"), [(4e6, 4e6), (3e12, 2.0**22), (1e15, 2.0**22)])
def test_huge_losses_never_overflow_their_sum(loss: float, counted: float) -> None:
    tally = Tally(torch.device("cpu"))
    for _ in range(1300):
        tally.add(torch.zeros(1000, 2), torch.zeros(1000, dtype=torch.long), torch.full((1000,), loss))
    sums = tally.read(LocalSession())
    assert (sums.mean_loss, sums.not_finite) == (counted, 0)


def test_the_top5_error_is_that_of_the_five_best_predictions() -> None:
    tally = Tally(torch.device("cpu"), top5=True)
    logits, labels = batch(1)
    tally.add(logits, labels)
    sums = tally.read(LocalSession())
    right = (logits.topk(5).indices == labels[:, None]).any(1)
    assert sums.top5_error == 100 * (~right).double().mean().item()
    assert 0 < sums.top5_error < sums.error
    assert tally_of([1]).wrong_top5 == 0  # not asked for
