"""ONNX files against the networks that they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import create_model
from models.onnx_export import export_onnx
from models.trained import Normalise, Trained

onnxruntime = pytest.importorskip("onnxruntime")


def settled(name: str, size: int, **options: str) -> torch.nn.Module:
    """A network with running statistics of its own, in training mode and channels_last as after a run."""
    model = create_model(name, 5, **options).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model(torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("cifar_attention56", 16, {}),
        ("cifar_attention56", 32, {"activation": "channel", "learning": "nal"}),
        ("cifar_attention56", 16, {"activation": "spatial", "mask": "local"}),
        ("cifar_preresnet164", 32, {}),
        ("cifar_wrn16_8", 32, {}),
        ("attention56", 64, {}),
        ("attentionnext56", 64, {}),
        ("attentioninception56", 64, {}),
        ("inception_resnet_v1", 96, {}),
        ("resnext101_32x4d", 64, {}),
    ],
)
def test_onnxruntime_computes_the_same_scores(tmp_path: Path, name: str, size: int, options: dict[str, str]) -> None:
    model = settled(name, size, **options)
    path = tmp_path / "network.onnx"
    export_onnx(model, path, size)
    assert model.training
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model.eval()
    for images in (1, 5):
        batch = torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(images))
        (scores,) = session.run(["scores"], {"images": batch.numpy()})
        with torch.no_grad():
            expected = model(batch).numpy()
        assert scores.shape == (images, 5)
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_images_too_small_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="smallest allowed are 8x8"):
        export_onnx(create_model("cifar_attention56", 5), tmp_path / "network.onnx", 7)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_trained_network_takes_uint8_images_and_names_its_classes(tmp_path: Path) -> None:
    mean = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(2))
    normalise = Normalise(image_size=16, crop_pct=1.0, mean=mean, std=[1.0, 0.5, 0.25])
    trained = Trained(settled("cifar_attention56", 16), normalise, tuple("abcde"), "cifar_attention56").eval()
    path = tmp_path / "network.onnx"
    export_onnx(trained, path, 16)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [*"abcde"]
    for count in (1, 3):
        images = torch.randint(256, (count, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        with torch.no_grad():
            expected = trained(images).numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_size_that_does_not_fit_the_mean_image_is_refused(tmp_path: Path) -> None:
    normalise = Normalise(image_size=16, crop_pct=1.0, mean=torch.zeros(16, 16, 3), std=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="images of 32x32 pixels do not fit the mean image of 16x16 pixels"):
        export_onnx(Trained(create_model("cifar_attention56", 2), normalise, ("a", "b"), ""), tmp_path / "n.onnx", 32)
    assert list(tmp_path.iterdir()) == []
