"""A plan is made from data that are verified as training verifies them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import corrupt, fetch, prepare
from pipeline.settings import config
from pipeline.settings.planning import build_plan
from pipeline.settings.tree import Config
from pipeline.utils.errors import UserError

ROOT = Path(__file__).parents[3]
PREPARED, NOISY = "prepared/digits", "noisy/digits/30"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    fetch("digits", root=data)
    prepare("digits", data)
    corrupt("digits", 30, data)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture(scope="module")
def tree() -> Config:
    settings = config.load(ROOT / config.PARAMS)
    experiments = {name: settings.experiments[name] for name in ("attention56", "attention92-noise30")}
    return settings.model_copy(update={"experiments": experiments})


def test_a_plan_has_what_the_data_are(tree: Config, data: Path) -> None:
    plan = build_plan(tree, data)
    clean, noisy = (plan.run(name, 0).spec.data for name in tree.experiments)
    assert (clean.train_images, clean.test_images, clean.image_size, len(clean.classes)) == (1437, 360, 16, 10)
    assert clean.checksum == noisy.checksum and clean.noise_checksum is None and noisy.noise_checksum


def change(key: str, value: Any) -> Callable[[Path], None]:
    """Write a key of a manifest; None removes it."""

    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        content = json.loads(path.read_text()) | {key: value}
        path.write_text(json.dumps({name: item for name, item in content.items() if item is not None}))

    return edit


def flip(name: str) -> Callable[[Path], None]:
    """Change one label of an array."""

    def edit(folder: Path) -> None:
        labels = np.load(folder / name)
        labels[0] = (labels[0] + 1) % 10
        np.save(folder / name, labels)

    return edit


@pytest.mark.parametrize(
    ("folder", "damage", "named"),
    [
        (PREPARED, change("train_images", 1438), "train_images"),
        (PREPARED, change("test_images", 0), "test_images"),
        (PREPARED, change("image_shape", [32, 32, 3]), "train_images"),
        (PREPARED, change("image_shape", [10**6, 10**6, 3]), "train_images"),
        (PREPARED, change("classes", [str(label) for label in range(10, 20)]), "classes"),
        (PREPARED, change("classes", ["a", "b"]), "labels"),
        *[(PREPARED, change(key, None), key) for key in ("train_images", "test_images", "classes", "image_shape")],
        (PREPARED, flip("train_labels.npy"), "train_labels.npy"),
        (NOISY, change("base_checksum", "0" * 64), NOISY),
        (NOISY, change("seed", 7), "noise_draw"),
        (NOISY, flip("labels.npy"), "labels.npy"),
    ],
)
def test_data_that_training_would_refuse_make_no_plan(
    tree: Config, data: Path, folder: str, damage: Callable[[Path], None], named: str
) -> None:
    damage(data / folder)
    with pytest.raises(UserError, match=named) as caught:
        build_plan(tree, data)
    assert "\n" not in str(caught.value)


def test_data_that_are_not_there_are_named_with_the_command_that_makes_them(tree: Config, data: Path) -> None:
    shutil.rmtree(data / NOISY)
    with pytest.raises(UserError, match=r"noisy/digits/30: no manifest.json there; run `dvc repro plan` first"):
        build_plan(tree, data)
