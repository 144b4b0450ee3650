from __future__ import annotations

import pytest

from pipeline.tracking.describe import cells


@pytest.mark.parametrize(
    ("experiment", "dataset", "expected"),
    [
        ("attention56", "digits", ["table1/mixed/error", "table3/attention56/arl", "table4/encoder_decoder/error"]),
        ("attention56-local", "digits", ["table4/local/error"]),
        ("attention92", "digits", ["table3/attention92/arl"]),
        ("attention92", "cifar10", ["table3/attention92/arl", "table6/attention92/cifar10"]),
        ("attention92-noise50", "cifar10", ["table5/noise50/attention92"]),
        ("attention452", "cifar100", ["table6/attention452/cifar100"]),
        ("resnet164", "digits", ["figure4/stage2/resnet164", "figure4/stage3/resnet164"]),
        ("my-own-experiment", "cifar10", []),
    ],
)
def test_an_experiment_fills_its_cells_of_the_paper(experiment: str, dataset: str, expected: list[str]) -> None:
    assert [str(cell) for cell in cells(experiment, dataset)] == expected
