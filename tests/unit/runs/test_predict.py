"""Classes and attention masks for image files, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import create_model, load_trained
from models.weights import save_weights
from pipeline.cli import main
from pipeline.runs.predict import read_square
from tests.unit.runs.trained_runs import CLASSES, NORMALISATION, SIZE, write_weights


def write_image(path: Path, height: int = SIZE, width: int = SIZE, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_classes_with_probabilities_are_printed_and_masks_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path)
    images = [write_image(tmp_path / "a.png"), write_image(tmp_path / "b.jpg", 40, 30)]
    assert main(["predict", str(weights), *map(str, images)]) == 0
    for line, image in zip(capsys.readouterr().out.splitlines(), images, strict=True):
        assert line.startswith(f"{image}: ")
        found = re.findall(r"(\w+) ([\d.]+) %", line)
        assert {name for name, _ in found} == set(CLASSES)
        shares = [float(share) for _, share in found]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.3)
        target = image.with_name(f"{image.stem}-masks.png")
        assert line.endswith(f"; masks: {target}")
        with Image.open(target) as drawn:
            assert drawn.width > 4 * 128  # the image, and the masks of three modules


def test_the_prediction_is_that_of_the_network_for_the_images_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, image = write_weights(tmp_path), write_image(tmp_path / "a.png")
    assert main(["predict", str(weights), str(image), "--top", "1"]) == 0
    (probabilities,) = load_trained(weights).predict(np.asarray(Image.open(image)))
    best = f"{CLASSES[probabilities.argmax()]} {100 * probabilities.max():.1f} %"
    assert capsys.readouterr().out == f"{image}: {best}; masks: {tmp_path / 'a-masks.png'}\n"


def test_masks_go_to_another_folder_that_is_made(tmp_path: Path) -> None:
    image = write_image(tmp_path / "images" / "a.png")
    assert main(["predict", str(write_weights(tmp_path)), str(image), "--out", str(tmp_path / "x" / "y")]) == 0
    assert (tmp_path / "x" / "y" / "a-masks.png").is_file()
    assert [file.name for file in image.parent.iterdir()] == ["a.png"]


def test_a_network_without_attention_is_only_asked_for_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, image = "cifar_wrn16_8", write_image(tmp_path / "a.png")
    save_weights(
        create_model(name, 4), tmp_path / "w", name=name, num_classes=4, classes=CLASSES, normalisation=NORMALISATION
    )
    assert main(["predict", str(tmp_path / "w"), str(image)]) == 0
    assert "masks" not in capsys.readouterr().out
    assert not (tmp_path / "a-masks.png").exists()


def test_an_image_of_another_size_is_cut_in_its_centre_and_resized(tmp_path: Path) -> None:
    trained = load_trained(write_weights(tmp_path))
    pixels = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    pixels[:, SIZE : 2 * SIZE] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_square(tmp_path / "wide.png", trained) == 200).all()
    trained.normalise.crop_pct = 0.5
    pixels[SIZE // 4 : 3 * SIZE // 4, SIZE + SIZE // 4 : 2 * SIZE - SIZE // 4] = 90
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_square(tmp_path / "wide.png", trained) == 90).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_colour_mode_is_read(tmp_path: Path, mode: str) -> None:
    path = write_image(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    assert read_square(path, load_trained(write_weights(tmp_path))).shape == (SIZE, SIZE, 3)


def test_what_cannot_be_predicted_is_one_line_and_nothing_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, old = str(write_weights(tmp_path)), str(write_weights(tmp_path / "old", old=True))
    good, other = str(write_image(tmp_path / "a.png")), str(write_image(tmp_path / "other" / "a.png"))
    (tmp_path / "text.png").write_text("not an image")
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(Path(good).read_bytes()[:200])
    (tmp_path / "out.txt").write_text("")
    for arguments, message in (
        ([old, good], "old/weights.safetensors: carries no class names and no normalisation"),
        ([str(tmp_path / "nothing"), good], "neither a file of weights nor a run's folder"),
        ([good, good], "a.png: not a complete safetensors file"),
        ([weights, good, str(tmp_path / "none.png")], "none.png: no such file"),
        ([weights, good, str(tmp_path / "text.png")], "text.png: not an image that can be read"),
        ([weights, good, str(truncated)], "truncated.png: not an image that can be read"),
        ([weights, good, str(tmp_path)], f"{tmp_path}: not an image that can be read"),
        ([weights, good, other, "--out", str(tmp_path / "out")], "a-masks.png: would hold the masks of 2 images"),
    ):
        assert main(["predict", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["predict", weights, good, "--out", str(tmp_path / "out.txt")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.rglob("*-masks.png")) and not (tmp_path / "out").exists()
