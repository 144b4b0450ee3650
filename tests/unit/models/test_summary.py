"""The table of a network's layers."""

from __future__ import annotations

import re

import pytest

from models import find_network
from models.counting import count
from models.summary import describe
from pipeline.cli import main

ROW = re.compile(
    r" (?P<layer>\S+) .*\s(?P<parameters>[\d,]+)\s+(?P<multiply_adds>[\d,]+)$"
)  # indented by one: outermost


def _sum(text: str, column: str) -> int:
    rows = [match for line in text.splitlines() if (match := ROW.match(line))]
    assert len(rows) >= 3
    return sum(int(row[column].replace(",", "")) for row in rows)


@pytest.mark.parametrize("name", ["cifar_attention56", "attention92", "cifar_wrn16_8", "inception_resnet_v2"])
def test_the_outermost_layers_add_up_to_the_counts(name: str) -> None:
    text, network = describe(name), find_network(name)
    counts = count(name, network.num_classes, network.image_size)
    assert _sum(text, "parameters") == counts.parameters
    assert _sum(text, "multiply_adds") == counts.multiply_adds
    assert f"{counts.parameters:,} parameters, {counts.multiply_adds:,} multiply-adds" in text
    assert f"trunk depth {counts.trunk_depth}" in text


def test_options_and_sizes_are_followed() -> None:
    text = describe("cifar_attention56", 100, 64, activation="channel")
    assert "100 classes, 64x64 pixels" in text
    assert "ChannelAttention" in text and "64x64x64" in text


def test_our_reading_is_named() -> None:
    assert f"our reading: {find_network('attentioninception56').our_reading}" in describe("attentioninception56")
    assert "our reading" not in describe("resnet152")


def test_an_unknown_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "attention57"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "attention57" in line and "attention56" in line
