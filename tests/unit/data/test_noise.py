"""Label noise: the matrix of Table 5, drawn once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from pipeline import data
from pipeline.data.arrays import load, read_manifest
from pipeline.data.noise import confusion_counts, noise_seed, redraw
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample

LEVELS = (10, 30, 50, 70)
# Raise `NUMERICS` of the training core when these change: every result with noisy labels changes with them.
DIGITS_30 = "7ac6a586"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    data.fetch("digits", root=root)
    data.prepare("digits", root)
    return root


def read_noisy(root: Path, level: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    folder = data.noisy_folder(root, "digits", level)
    return read_manifest(folder), np.load(folder / "labels.npy"), np.load(folder / "flipped.npy")


@pytest.mark.parametrize("level", LEVELS)
def test_the_files_agree_with_each_other(root: Path, level: int) -> None:
    returned = data.corrupt("digits", level, root)
    manifest, labels, flipped = read_noisy(root, level)
    clean = load(data.prepared_folder(root, "digits"))
    assert returned == manifest
    assert labels.dtype == np.int64 and flipped.dtype == np.bool_
    np.testing.assert_array_equal(flipped, labels != clean.train_labels)
    assert manifest["flipped"] == flipped.sum()
    matrix = np.array(manifest["matrix"])
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(clean.train_labels))
    np.testing.assert_array_equal(matrix.sum(axis=0), np.bincount(labels, minlength=10))
    assert matrix.sum() - np.trace(matrix) == manifest["flipped"]
    assert (manifest["dataset"], manifest["level"], manifest["classes"]) == ("digits", level, list("0123456789"))
    assert manifest["base_checksum"] == clean.checksum
    assert manifest["seed"] == noise_seed("digits", level)


@pytest.mark.parametrize("level", [1, *LEVELS, 90, 99])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_are_redrawn_with_the_matrix_of_the_level(level: int, classes: int) -> None:
    clean = np.arange(200_000) % classes
    counts = confusion_counts(clean, redraw(clean, classes, level, noise_seed("cifar10", level)), classes)
    stay, each = 1 - level / 100, level / 100 / (classes - 1)
    expected = np.full((classes, classes), each) + np.eye(classes) * (stay - each)
    # One false alarm in 10,000 draws, were they random; the seeds are fixed, so there is none.
    assert stats.chisquare(counts.ravel(), expected.ravel() * 200_000 / classes, ddof=classes - 1).pvalue > 1e-4


def test_the_draw_does_not_depend_on_the_label_or_its_place() -> None:
    clean = np.repeat(np.arange(10), 20_000)
    flipped = redraw(clean, 10, 30, noise_seed("cifar10", 30)) != clean
    halves = [[half.sum(), (~half).sum()] for half in np.split(flipped, 2)]
    classes = [[part.sum(), (~part).sum()] for part in np.split(flipped, 10)]
    for table in (halves, classes):
        assert stats.chi2_contingency(table).pvalue > 1e-4
    assert abs(np.corrcoef(flipped[:-1], flipped[1:])[0, 1]) < 0.01


def test_a_flipped_label_is_never_the_clean_one_and_always_a_class() -> None:
    clean = np.arange(100_000) % 10
    noisy = redraw(clean, 10, 99, 1)
    flips = noisy != clean
    assert 98_500 < flips.sum() < 99_500  # a flip to itself would make it about 89,000
    assert noisy.min() >= 0 and noisy.max() <= 9


def test_the_draw_is_the_known_one(root: Path) -> None:
    assert noise_seed("cifar10", 30) == 8633455830145317999
    drawn = redraw(np.zeros(20, np.int64), 10, 50, 0).tolist()
    assert drawn == [0, 2, 7, 6, 0, 0, 0, 0, 0, 0, 0, 4, 0, 7, 0, 3, 0, 0, 9, 4]
    assert data.corrupt("digits", 30, root)["checksum"].startswith(DIGITS_30)


def test_drawing_again_gives_the_same_bytes(root: Path) -> None:
    folder = data.noisy_folder(root, "digits", 50)
    contents = []
    for _ in range(2):
        data.corrupt("digits", 50, root)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"labels.npy", "flipped.npy", "manifest.json"}


def test_levels_and_data_sets_have_draws_of_their_own() -> None:
    seeds = [noise_seed(name, level) for name in data.DATASETS for level in LEVELS]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    clean = np.zeros(50_000, np.int64)
    flips = [redraw(clean, 10, level, noise_seed("cifar10", level)) > 0 for level in (30, 50)]
    assert abs(np.corrcoef(*flips)[0, 1]) < 0.02


def test_the_global_generator_is_left_alone(root: Path) -> None:
    before = np.random.get_state()[1].tobytes()
    data.corrupt("digits", 30, root)
    assert np.random.get_state()[1].tobytes() == before


def test_prepared_data_and_test_labels_stay_clean(root: Path) -> None:
    prepared = data.prepared_folder(root, "digits")
    before = {path.name: path.read_bytes() for path in prepared.iterdir()}
    data.corrupt("digits", 70, root)
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before
    clean, noisy = load(prepared), load(prepared, data.noisy_folder(root, "digits", 70))
    np.testing.assert_array_equal(clean.test_labels, noisy.test_labels)
    np.testing.assert_array_equal(clean.train_images, noisy.train_images)
    assert (clean.train_labels != noisy.train_labels).sum() == read_noisy(root, 70)[0]["flipped"]
    assert clean.noise_checksum is None and noisy.noise_checksum == read_noisy(root, 70)[0]["checksum"]


def test_the_noise_belongs_to_the_image_whatever_the_source(sample: Sample, tmp_path: Path) -> None:
    checksums = set()
    for form, source in (("a", sample.write_parquet(tmp_path / "hub")), ("b", sample.write_tree(tmp_path / "tree"))):
        data.fetch("cifar10", str(source), tmp_path / form)
        data.prepare("cifar10", tmp_path / form)
        checksums.add(data.corrupt("cifar10", 50, tmp_path / form)["checksum"])
    assert len(checksums) == 1


@pytest.mark.parametrize("level", [0, 100, -10, 30.0, "30", True, None])
def test_a_level_that_is_no_percentage_is_refused(root: Path, level: Any) -> None:
    with pytest.raises(UserError, match=r"allowed are whole percentages from 1 to 99"):
        data.corrupt("digits", level, root)


def test_corrupting_what_was_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepared/digits: no manifest\.json there; run prepare first"):
        data.corrupt("digits", 10, tmp_path)


def test_another_draw_is_independent_and_the_first_is_what_it_was(root: Path) -> None:
    data.corrupt("digits", 30, root)
    first = read_noisy(root, 30)[2]
    manifest = data.corrupt("digits", 30, root, draw=1)
    second = read_noisy(root, 30)[2]
    assert not manifest["checksum"].startswith(DIGITS_30) and manifest["seed"] == noise_seed("digits", 30, 1)
    both = (first & second).mean()
    assert abs(both - 0.09) < 0.03, "the flips of two draws are independent"
    assert data.corrupt("digits", 30, root)["checksum"].startswith(DIGITS_30)
