"""Networks that are written to files and read again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import create_model
from models.weights import KEY, load_model, network_sha256, save_weights

NAME, CLASSES, OPTIONS = "cifar_attention56", 7, {"learning": "nal", "t": 1}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(create_model(NAME, CLASSES, **OPTIONS), path, name=NAME, num_classes=CLASSES, options=OPTIONS)
    return path


def test_a_saved_network_comes_back_with_its_configuration_weights_and_statistics(tmp_path: Path) -> None:
    model = create_model(NAME, CLASSES, seed=3, **OPTIONS).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model(images)  # moves the running statistics
    save_weights(model, tmp_path / "w", name=NAME, num_classes=CLASSES, options=OPTIONS)
    loaded = load_model(tmp_path / "w", name=NAME)
    expected, found = model.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(model.eval()(images).argmax(1), loaded.eval()(images).argmax(1))
    assert loaded(images).shape == (4, CLASSES)


def test_equal_weights_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    model = create_model(NAME, CLASSES, **OPTIONS).to(memory_format=torch.channels_last)
    save_weights(model, again, name=NAME, num_classes=CLASSES, options=dict(reversed(OPTIONS.items())))
    assert again.read_bytes() == saved.read_bytes()


def test_no_half_written_file_is_left(saved: Path) -> None:
    assert list(saved.parent.iterdir()) == [saved]


def test_a_compiled_network_is_saved_as_the_network_that_it_is(saved: Path, tmp_path: Path) -> None:
    compiled = torch.compile(create_model(NAME, CLASSES, **OPTIONS), backend="eager")
    save_weights(compiled, tmp_path / "compiled", name=NAME, num_classes=CLASSES, options=OPTIONS)  # type: ignore[arg-type]
    assert (tmp_path / "compiled").read_bytes() == saved.read_bytes()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing: no such file"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\xff" * 64])
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a complete safetensors file") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "metrics.json", "checksums.json"])
def test_a_pipe_is_not_waited_for(saved: Path, name: str) -> None:
    path = saved.rename(saved.with_name("weights.safetensors"))
    path.with_name(name).unlink(missing_ok=True)
    os.mkfifo(path.with_name(name))
    with pytest.raises(ValueError, match=f"{name}: (damaged|not a complete)"):
        load_model(path)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_model(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {KEY: "{"}, {KEY: "[]"}])
def test_a_file_without_a_configuration_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w", metadata)
    with pytest.raises(ValueError, match="was not written by save_weights"):
        load_model(tmp_path / "w")


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"name": "resnet18", "num_classes": 10, "options": {}},
        {"name": NAME, "num_classes": -1, "options": {}},
        {"name": NAME, "num_classes": 10, "options": {"depth": 1}},
        {"name": NAME, "num_classes": 10, "options": None},
        {"name": NAME, "num_classes": 10, "options": {"device": "cuda"}},
        {"name": NAME, "num_classes": 10**18, "options": {}},
        {"name": NAME, "num_classes": 10, "options": {"p": 10**7}},
    ],
)
def test_a_configuration_of_no_network_is_refused(tmp_path: Path, configuration: dict[str, object]) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w", {KEY: json.dumps(configuration)})
    with pytest.raises(ValueError, match="its configuration does not describe a network of this package"):
        load_model(tmp_path / "w")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_weights(create_model(NAME, 10), tmp_path / "w", name=NAME, num_classes=11)
    with pytest.raises(ValueError, match="2 of its tensors do not fit cifar_attention56, such as fc"):
        load_model(tmp_path / "w")


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_weights_of_another_type_are_refused(tmp_path: Path, saved: Path, dtype: torch.dtype) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in load_file(saved).items()}
    configuration = {"name": NAME, "num_classes": CLASSES, "options": OPTIONS}
    save_file(tensors, tmp_path / "w", {KEY: json.dumps(configuration)})
    with pytest.raises(ValueError, match="of its tensors do not fit cifar_attention56, such as "):
        load_model(tmp_path / "w")


def test_nesting_without_end_is_refused(tmp_path: Path, saved: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w", {KEY: 200_000 * "["})
    with pytest.raises(ValueError, match="was not written by save_weights"):
        load_model(tmp_path / "w")
    saved.with_name("checksums.json").write_text(200_000 * "[")
    with pytest.raises(ValueError, match=r"checksums\.json: damaged"):
        load_model(saved)


def test_another_network_than_the_one_asked_for_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="holds cifar_attention56, not cifar_attention92"):
        load_model(saved, name="cifar_attention92")


def test_the_checksum_is_that_of_the_network_with_or_without_class_names_and_normalisation(
    saved: Path, tmp_path: Path
) -> None:
    plain = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert network_sha256(saved) == plain
    normalisation = {"image_size": 16, "crop_pct": 1.0, "mean": [0.5, 0.5, 0.5], "std": [1.0, 1.0, 1.0]}
    model = create_model(NAME, CLASSES, **OPTIONS)
    names = [f"class {k}" for k in range(CLASSES)]
    path = tmp_path / "trained"
    written = save_weights(
        model, path, name=NAME, num_classes=CLASSES, options=OPTIONS, classes=names, normalisation=normalisation
    )
    assert written == network_sha256(path) == plain
    assert path.read_bytes() != saved.read_bytes()
    model.fc.bias.data[0] = 1
    assert save_weights(model, path, name=NAME, num_classes=CLASSES, options=OPTIONS) != plain


def test_any_safetensors_reader_finds_the_state_dict_and_nothing_else(tmp_path: Path) -> None:
    model = create_model(NAME, CLASSES)
    normalisation = {"image_size": 2, "crop_pct": 1.0, "mean": [[[0.5] * 3] * 2] * 2, "std": [1.0] * 3}
    save_weights(model, tmp_path / "w", name=NAME, num_classes=CLASSES, classes="abcdefg", normalisation=normalisation)
    assert load_file(tmp_path / "w").keys() == model.state_dict().keys()
    assert load_model(tmp_path / "w").fc.out_features == CLASSES
