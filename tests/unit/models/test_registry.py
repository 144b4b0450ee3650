"""Names, options and their mistakes."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import NETWORKS, AttentionOptions, create_model, find_network, list_models, resolve_options

ISSUED = {
    "attention56",
    "attention92",
    "attentionnext56",
    "attentionnext92",
    "attentioninception56",
    "resnet152",
    "preresnet200",
    "resnext101_32x4d",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "cifar_attention56",
    "cifar_attention92",
    "cifar_attention128",
    "cifar_attention164",
    "cifar_attention236",
    "cifar_attention452",
    "cifar_preresnet164",
    "cifar_preresnet1001",
    "cifar_wrn16_8",
    "cifar_wrn28_10",
}


def test_every_network_of_the_paper_is_listed() -> None:
    assert set(list_models()) == ISSUED


def test_a_pattern_filters_names_and_depths_are_in_natural_order() -> None:
    assert list_models("cifar_attention*") == [f"cifar_attention{depth}" for depth in (56, 92, 128, 164, 236, 452)]
    assert list_models("nothing*") == []


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown network 'cifar_atention92'; did you mean 'cifar_attention92'"):
        create_model("cifar_atention92")
    with pytest.raises(ValueError, match="unknown network 'zzz'; known: attention56"):
        create_model("zzz")


def test_an_unknown_option_names_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="unknown option 'depth'; its options are learning, activation, mask, p, t, r"):
        create_model("cifar_attention56", depth=3)
    with pytest.raises(ValueError, match="cifar_preresnet164: unknown option 'p'; it has no options"):
        create_model("cifar_preresnet164", p=1)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("learning", "ARL", "arl, nal"),
        ("activation", "sigmoid", "mixed, channel, spatial"),
        ("mask", None, "encoder_decoder, local"),
        ("p", 0, "at least 1"),
        ("t", 1.5, "at least 1"),
        ("r", True, "at least 1"),
        ("t", "2", "at least 1"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(option: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"cifar_attention56: {option}: {value!r} is not .*{allowed}"):
        create_model("cifar_attention56", **{option: value})


@pytest.mark.parametrize("classes", [-1, 2.0, "10", True])
def test_a_wrong_number_of_classes_is_refused(classes: object) -> None:
    with pytest.raises(ValueError, match=r"num_classes: .* is not an integer of at least 0"):
        create_model("cifar_attention56", classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [0, -1, 2.0, "3", True])
def test_a_wrong_number_of_channels_is_refused(channels: object) -> None:
    with pytest.raises(ValueError, match=r"in_chans: .* is not an integer of at least 1"):
        create_model("cifar_attention56", in_chans=channels)  # type: ignore[arg-type]


def test_options_are_completed_with_the_variants_own() -> None:
    assert resolve_options("cifar_attention56", {}) == AttentionOptions("arl", "mixed", "encoder_decoder", 1, 2, 1)
    assert resolve_options("cifar_attention452", {"learning": "nal"}) == AttentionOptions("nal", p=2, t=4, r=3)
    assert resolve_options("preresnet200", {}) is None


@pytest.mark.parametrize(("name", "classes"), [("cifar_attention56", 10), ("attention56", 1000)])
def test_classes_default_to_those_of_the_papers_data(name: str, classes: int) -> None:
    assert create_model(name, device="meta").fc.out_features == classes


def test_what_is_inferred_is_said() -> None:
    assert all(NETWORKS[name].our_reading for name in list_models("cifar_attention*"))
    assert "no structure" in find_network("attentioninception56").our_reading
    assert find_network("attention56").our_reading == ""


def test_names_and_options_are_checked_without_importing_torch() -> None:
    code = """
import sys, models
models.resolve_options("cifar_attention56", {"p": 2})
assert models.list_models() and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_network_can_be_made_without_memory() -> None:
    assert all(p.device.type == "meta" for p in create_model("preresnet200", device="meta").parameters())
    assert next(create_model("cifar_attention56", device=torch.device("meta")).parameters()).is_meta


def test_every_name_is_an_entry_point_of_torch_hub() -> None:
    repository = Path(__file__).parents[3]
    for name in ("cifar_attention56", "resnet152"):
        network = torch.hub.load(str(repository), name, source="local", num_classes=4, device="meta")
        assert network.fc.out_features == 4
    entries = runpy.run_path(str(repository / "hubconf.py"))
    assert {*list_models(), "load_trained"} <= {name for name, entry in entries.items() if callable(entry)}
    assert "num_classes" in entries["attention92"].__doc__


def test_models_imports_nothing_of_the_pipeline() -> None:
    code = """
import importlib, pkgutil, sys, models
for module in pkgutil.iter_modules(models.__path__):
    importlib.import_module(f"models.{module.name}")
assert not [name for name in sys.modules if name.partition(".")[0] == "pipeline"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_packages_say_that_they_are_typed() -> None:
    assert all((Path(__file__).parents[3] / package / "py.typed").is_file() for package in ("models", "pipeline"))
