"""Trained networks: one file in, a network for uint8 images out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import Trained, create_model, load_trained
from models.attention import attention_outputs
from models.trained import Normalise
from models.weights import load_model, save_weights

NAME, CLASSES, SIZE = "cifar_attention56", ("cat", "dog", "ship"), 16
MEAN = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
PER_PIXEL = {"image_size": SIZE, "crop_pct": 1.0, "mean": MEAN.tolist(), "std": [1.0, 1.0, 1.0]}
PER_CHANNEL = {"image_size": SIZE, "crop_pct": 0.875, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def write(path: Path, normalisation: dict[str, Any], classes: tuple[str, ...] = CLASSES) -> Path:
    model = create_model(NAME, 3, seed=5)
    save_weights(model, path, name=NAME, num_classes=3, classes=classes, normalisation=normalisation)
    return path


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return load_trained(write(tmp_path / "w", PER_PIXEL))


def images(count: int = 4, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def test_a_file_gives_network_class_names_and_probabilities(trained: Trained, tmp_path: Path) -> None:
    assert trained.classes == CLASSES
    assert not trained.training
    with torch.no_grad():
        scores = load_model(tmp_path / "w").eval()((images().float() / 255 - MEAN).permute(0, 3, 1, 2))
    probabilities = trained.predict(images())
    assert torch.equal(trained(images()), scores)
    assert torch.equal(probabilities, scores.softmax(1))
    assert not probabilities.requires_grad


def test_the_normalisation_comes_back_bit_for_bit(trained: Trained) -> None:
    assert torch.equal(trained.normalise.mean, MEAN)
    assert trained.normalise.settings() == PER_PIXEL


def test_channel_means_and_deviations_normalise_images_of_any_size(tmp_path: Path) -> None:
    normalise = load_trained(write(tmp_path / "w", PER_CHANNEL)).normalise
    expected = (images(2, 24).double() / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])
    torch.testing.assert_close(normalise(images(2, 24)).double(), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_channels_may_come_first_and_arrays_and_single_images_are_taken(trained: Trained) -> None:
    expected = trained.predict(images())
    assert torch.equal(trained.predict(images().permute(0, 3, 1, 2)), expected)
    assert torch.equal(trained.predict(images().numpy()), expected)
    torch.testing.assert_close(trained.predict(np.asarray(images()[0])), expected[:1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (images().float(), "images are float32 [4, 16, 16, 3]; needed are uint8 [N, H, W, 3] or [N, 3, H, W]"),
        (images()[..., :1], "images are uint8 [4, 16, 16, 1]"),
        (images()[0, 0], "images are uint8 [16, 3]"),
        (images(2, 8), "images of 8x8 pixels do not fit the mean image of 16x16 pixels"),
    ],
)
def test_images_of_another_kind_or_size_are_refused(trained: Trained, wrong: Tensor, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        trained.predict(wrong)
    assert message in str(caught.value)


def test_an_old_file_still_loads_and_says_what_it_lacks(tmp_path: Path) -> None:
    save_weights(create_model(NAME, 3), tmp_path / "w", name=NAME, num_classes=3)
    with pytest.raises(ValueError, match=r"w: carries no class names and no normalisation .*load_model loads"):
        load_trained(tmp_path / "w")
    assert load_model(tmp_path / "w").fc.out_features == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": [0.5]}, r"mean has shape \[1\], allowed is \[3\] or \[16, 16, 3\]"),
        ({"mean": "grey"}, ""),
        ({"std": [1.0]}, r"std has shape \[1\], allowed is \[3\]"),
        ({"crop_pct": 0}, "crop_pct = 0: must be above 0 and at most 1"),
        ({"crop_pct": None}, ""),
        ({"image_size": "16"}, "image_size: '16' is not an integer of at least 1"),
        ({"gamma": 2.2}, "gamma"),
        ({"image_size": 10**6}, "image_size: 1000000 is above 4096"),
        ({"image_size": 10**20}, "image_size: 1.* is above 4096"),
        ({"std": [1.0, 0.0, 1.0]}, "std finite and above 0"),
        ({"std": [1.0, float("nan"), 1.0]}, "std finite and above 0"),
        ({"mean": [0.5, float("inf"), 0.5]}, "mean must be finite"),
    ],
)
def test_a_damaged_normalisation_is_one_line(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "w", PER_PIXEL | changes)
    with pytest.raises(ValueError, match=f"its class names or its normalisation are damaged .*{reason}") as caught:
        load_trained(path)
    assert "\n" not in str(caught.value)


def test_class_names_for_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        load_trained(write(tmp_path / "w", PER_PIXEL, ("cat", "dog")))


@pytest.mark.parametrize("classes", [("a", "a", "b"), (1, None, {"a": 1}), ("a", "b", "\x1b[31mc")])
def test_class_names_are_different_texts(tmp_path: Path, classes: Any) -> None:
    with pytest.raises(ValueError, match="class names must be different texts without control characters"):
        load_trained(write(tmp_path / "w", PER_PIXEL, classes))


def test_weights_that_are_not_finite_predict_nothing(tmp_path: Path) -> None:
    model = create_model(NAME, 3)
    torch.nn.init.constant_(model.fc.bias, float("nan"))
    path = tmp_path / "w"
    save_weights(model, path, name=NAME, num_classes=3, classes=CLASSES, normalisation=PER_PIXEL)
    with pytest.raises(ValueError, match="w: its weights are not finite; the run has diverged"):
        load_trained(path)


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    again = Normalise(**PER_PIXEL).settings()
    assert write(tmp_path / "a", PER_PIXEL).read_bytes() == write(tmp_path / "b", again).read_bytes()


def test_the_masks_of_a_prediction_are_recorded_by_stage_and_module(trained: Trained) -> None:
    with attention_outputs(trained.network, "mask", "trunk") as outputs:
        trained.predict(images())
    assert [*outputs] == [f"s{s}m1/{part}" for s in (1, 2, 3) for part in ("trunk", "mask")]
    assert outputs["s2m1/mask"].shape == (4, 128, 8, 8)
    recorded = outputs["s1m1/mask"]
    trained.predict(images(1))
    assert outputs["s1m1/mask"] is recorded  # hooks are gone


def test_a_network_without_attention_has_no_masks() -> None:
    model = create_model("cifar_wrn16_8", 2, device="meta")
    with attention_outputs(model, "mask") as outputs:
        model(torch.empty(1, 3, 8, 8, device="meta"))
    assert outputs == {}
