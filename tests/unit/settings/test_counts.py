"""Sizes of networks that are kept between commands."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from models import Counts, counting
from pipeline.runs.spec import NetworkSpec
from pipeline.settings.counts import FILE, NetworkCounts

NETWORK = NetworkSpec("cifar_attention56", 10, {"learning": "nal"})


@pytest.fixture
def counted(tmp_path: Path) -> Counts:
    return NetworkCounts(tmp_path).of(NETWORK, 16)


def never(*_: object, **__: object) -> None:
    pytest.fail("it was counted again")


def test_a_network_is_counted_once(tmp_path: Path, counted: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted == counting.count(NETWORK.name, 10, 16, learning="nal")
    monkeypatch.setattr(counting, "count", never)
    assert NetworkCounts(tmp_path).of(NETWORK, 16) == counted


def test_other_sizes_options_and_classes_are_others(tmp_path: Path, counted: Counts) -> None:
    known = NetworkCounts(tmp_path)
    assert known.of(NETWORK, 32).multiply_adds > counted.multiply_adds
    assert known.of(NetworkSpec(NETWORK.name, 100, NETWORK.options), 16).parameters > counted.parameters
    assert known.of(NetworkSpec(NETWORK.name, 10, {"mask": "local"}), 16) != counted


@pytest.mark.parametrize("damage", ["number", "kind", "null", "code", "cut", "empty", "folder", "list"])
def test_a_file_that_is_damaged_or_of_other_code_is_not_used(tmp_path: Path, counted: Counts, damage: str) -> None:
    path = tmp_path / FILE
    content = json.loads(path.read_text())
    if damage == "number":
        (key,) = content["counts"]
        content["counts"][key]["parameters"] += 1
        path.write_text(json.dumps(content))
    elif damage in ("kind", "null"):  # of another version, which has kept its own checksum
        (key,) = content["counts"]
        content["counts"][key] = [1, 2] if damage == "kind" else None
        content["sha256"] = hashlib.sha256(json.dumps(content["counts"], sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(content))
    elif damage == "code":
        path.write_text(json.dumps(content | {"code": "0" * 64}))
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text({"cut": path.read_text()[:50], "empty": "", "list": "[1]"}[damage])
    assert NetworkCounts(tmp_path).of(NETWORK, 16) == counted


def test_a_folder_that_cannot_be_written_costs_time_alone(counted: Counts) -> None:
    assert NetworkCounts(Path("/proc/nowhere")).of(NETWORK, 16) == counted
