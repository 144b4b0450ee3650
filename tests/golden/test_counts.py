"""Parameters, multiply-adds and depths: of the published network files, and of the papers of the baselines."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import create_model, list_models
from models.counting import count
from models.inception_resnet import inception_resnet_v1
from pipeline.cli import main
from pipeline.report.counts import write_counts
from pipeline.settings.counts import NetworkCounts

IMAGENET = {  # parameters for 1,000 classes; multiply-adds by image size
    "attention56": (31_810_728, {224: 6_270_836_736, 320: 12_795_494_400}),
    "attention92": (52_466_344, {224: 10_533_789_696, 320: 21_495_398_400}),
    "attentionnext56": (31_318_824, {224: 6_419_106_816, 320: 13_098_086_400}),
    "attentionnext92": (52_102_952, {224: 10_704_337_920, 320: 21_843_456_000}),
    "resnet152": (60_192_808, {224: 11_282_415_616}),
    "preresnet200": (64_666_280, {224: 15_007_481_856, 320: 30_625_382_400}),
    "resnext101_32x4d": (44_177_704, {224: 7_969_996_800}),
    "inception_resnet_v1": (23_995_624, {299: 6_308_235_360}),
    "inception_resnet_v2": (55_843_464, {299: 13_155_794_016}),
}
CIFAR = {  # parameters for 10 and for 100 classes; millions of multiply-adds for 10 classes
    "cifar_attention56": (1_030_362, 1_053_492, 122.8),
    "cifar_attention92": (1_841_242, 1_864_372, 211.9),
    "cifar_attention128": (2_652_122, 2_675_252, 301.0),
    "cifar_attention164": (3_463_002, 3_486_132, 390.1),
    "cifar_attention236": (5_084_762, 5_107_892, 568.3),
    "cifar_attention452": (8_491_610, 8_514_740, 957.6),
    "cifar_preresnet164": (1_703_258, 1_726_388, 247.6),
    "cifar_preresnet1001": (10_327_706, 10_350_836, 1491.0),
    "cifar_wrn16_8": (10_961_370, 11_007_540, 1548.1),
    "cifar_wrn28_10": (36_479_194, 36_536_884, 5243.3),
}


def test_every_network_has_a_golden_count() -> None:
    assert {*IMAGENET, *CIFAR, "attentioninception56"} == set(list_models())


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_network_has_its_counts(name: str) -> None:
    parameters, multiply_adds = IMAGENET[name]
    for size, expected in multiply_adds.items():
        counts = count(name, 1000, size)
        assert (counts.parameters, counts.multiply_adds) == (parameters, expected)


@pytest.mark.parametrize("name", CIFAR)
def test_a_cifar_network_has_its_counts(name: str) -> None:
    ten, hundred, millions = CIFAR[name]
    counts = count(name, 10, 32)
    assert counts.parameters == ten
    assert round(counts.multiply_adds / 1e6, 1) == millions
    assert count(name, 100, 32).parameters == hundred


def test_our_reading_of_attention_inception_has_the_published_size_within_three_percent() -> None:
    counts = count("attentioninception56", 1000, 224)
    assert counts.parameters == pytest.approx(31.9e6, rel=0.03)
    assert counts.multiply_adds == pytest.approx(6.3e9, rel=0.03)


def test_attention_452_needs_the_stage_3_mask_at_two_units() -> None:
    """With 2r = 6 units there it would have 10.18 million parameters, where the paper prints 8.6."""
    assert count("cifar_attention236", 10, 32, p=2, t=4, r=3).parameters == 8_491_610


def test_inception_resnet_v1_without_the_additions_of_public_implementations_is_smaller() -> None:
    with torch.device("meta"):
        model = inception_resnet_v1(1000, embedding=0)
    assert sum(p.numel() for p in model.parameters()) == 22_756_328


def test_the_local_mask_costs_about_what_the_encoder_decoder_does() -> None:
    """Three units replace the whole mask: 13 % more. With its two 1x1 convolutions besides it would be 83 %."""
    masks = 12_705_792 + 12_288_000 + 10_616_832  # of the three stages, for one module in each
    others = count("cifar_attention56", 10, 32).multiply_adds - masks
    local = count("cifar_attention56", 10, 32, mask="local").multiply_adds - others
    assert local == 3 * 13_369_344
    assert local / masks == pytest.approx(1.13, abs=0.005)


DEPTHS = {name: int(name.split("attention")[1]) for name in list_models("*attention[0-9]*")} | {
    "attentionnext56": 56,
    "attentionnext92": 92,
    "resnet152": 152,
    "preresnet200": 200,
    "resnext101_32x4d": 101,
    "cifar_preresnet164": 164,
    "cifar_preresnet1001": 1001,
}


@pytest.mark.parametrize("name", DEPTHS)
def test_the_trunk_is_as_deep_as_the_name_says(name: str) -> None:
    counts = count(name, 10, 32) if name.startswith("cifar_") else count(name, 1000, 224)
    assert counts.trunk_depth == DEPTHS[name]


@pytest.mark.parametrize("name", ["cifar_attention56", "attentionnext56", "cifar_wrn16_8"])
def test_multiply_adds_are_half_the_operations_that_torch_counts(name: str) -> None:
    model = create_model(name, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 64, 64, device="meta"))
    operations = counter.get_flop_counts()["Global"]
    layers = operations[torch.ops.aten.convolution] + operations[torch.ops.aten.addmm]
    assert count(name, model.fc.out_features, 64).multiply_adds * 2 == layers


@pytest.mark.parametrize(
    ("name", "size"), [("cifar_attention56", 32), ("cifar_preresnet164", 16), ("attentionnext56", 64)]
)
def test_activation_memory_is_what_autograd_really_keeps(name: str, size: int) -> None:
    model = create_model(name, 10)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(torch.zeros(1, 3, size, size))
    measured = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    assert scores.requires_grad
    assert count(name, 10, size).activation_bytes == pytest.approx(measured, rel=0.002)


def test_the_table_has_every_network_first_at_the_papers_size(tmp_path: Path) -> None:
    path = write_counts(tmp_path, NetworkCounts(tmp_path))
    first = path.read_bytes()
    write_counts(tmp_path, NetworkCounts(tmp_path))
    assert path.read_bytes() == first
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["network"] for row in rows]
    assert sorted(set(names), key=names.index) == list_models()
    heads = {name: rows[names.index(name)] for name in names}
    assert heads["attention92"]["image_size"] == "224"
    assert heads["attention92"]["parameters_difference_percent"] == "+2.3"
    assert heads["preresnet200"]["multiply_adds_difference_percent"] == "+0.0"
    assert heads["cifar_wrn28_10"]["paper_parameters_millions"] == "36.5"
    assert all(row["our_reading"] for row in rows if row["network"] == "attentioninception56")
    at_320 = [row for row in rows if row["network"] == "attention92" and row["image_size"] == "320"]
    assert [row["paper_multiply_adds_billions"] for row in at_320] == [""]


def test_the_committed_table_is_what_counts_writes(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "reports" / "counts" / "networks.csv"
    assert write_counts(tmp_path, NetworkCounts(tmp_path)).read_bytes() == committed.read_bytes()


def test_the_table_is_printed_as_json_without_writing_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.report.counts.list_models", lambda: ["cifar_wrn16_8"])
    assert main(["counts", "--json"]) == 0
    ten, hundred = json.loads(capsys.readouterr().out)
    assert (ten["parameters"], ten["paper_parameters_millions"], hundred["num_classes"]) == (10_961_370, 11.0, 100)
    assert ten["parameters_difference_percent"] == -0.4 and ten["our_reading"] == ""
    assert list(tmp_path.iterdir()) == []
