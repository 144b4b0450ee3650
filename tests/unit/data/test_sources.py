"""The prepared arrays do not depend on where the data came from."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline import data
from pipeline.data.arrays import PREPARED, load, read_manifest
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample, Server


def prepared_bytes(dataset: str, source: str, root: Path) -> dict[str, bytes]:
    data.fetch(dataset, source, root)
    data.prepare(dataset, root)
    folder = data.prepared_folder(root, dataset)
    return {name: (folder / f"{name}.npy").read_bytes() for name in PREPARED}


def test_all_sources_give_the_same_arrays_bit_for_bit(
    either_sample: Sample, official: Callable[[Sample, Path], Server], tmp_path: Path
) -> None:
    sample, name = either_sample, either_sample.dataset.name
    official(sample, tmp_path)
    sources = {
        "archive": "official",
        "parquet": str(sample.write_parquet(tmp_path / "hub" / "plain_text", "PNG", seed=1)),
        "parquet of WebP": str(sample.write_parquet(tmp_path / "shards", "WEBP", shards=1, seed=2)),
        "tree": str(sample.write_tree(tmp_path / "tree", "PNG")),
        "tree of BMP": str(sample.write_tree(tmp_path / "bmp", "BMP")),
    }
    prepared = {form: prepared_bytes(name, source, tmp_path / form) for form, source in sources.items()}
    for form, arrays in prepared.items():
        assert arrays == prepared["archive"], form
    checksums = {read_manifest(data.prepared_folder(tmp_path / form, name))["checksum"] for form in sources}
    assert len(checksums) == 1


def test_the_arrays_hold_each_image_with_its_label(sample: Sample, tmp_path: Path) -> None:
    data.fetch("cifar10", str(sample.write_parquet(tmp_path / "hub")), tmp_path)
    data.prepare("cifar10", tmp_path)
    arrays = load(data.prepared_folder(tmp_path, "cifar10"))
    found = sorted(
        (image.tobytes(), label) for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)
    )
    written = sorted((i.tobytes(), k) for i, k in zip(sample.train.images, sample.train.labels, strict=True))
    assert found == written
    assert arrays.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_pickled_by_python_3_are_read_alike(sample: Sample, protocol: int, tmp_path: Path) -> None:
    from pipeline.data.source import Source, record_files

    decoded = []
    for name, pickled in {
        "official.tar.gz": sample.python2_pickle,
        "new.tar.gz": lambda value: pickle.dumps(value, protocol=protocol),
    }.items():
        sample.write_archive(tmp_path / name, pickled)
        source = Source("cifar10", "archive", ".", record_files(tmp_path, [name]))
        decoded.append(sample.dataset.decode(source, tmp_path))
    (train, test), (new_train, new_test) = decoded
    for old, new in ((train, new_train), (test, new_test)):
        np.testing.assert_array_equal(old.images, new.images)
        np.testing.assert_array_equal(old.labels, new.labels)
    np.testing.assert_array_equal(train.images, sample.train.images)


def test_class_names_of_cifar100_are_the_hundred_fine_ones_in_alphabetical_order() -> None:
    classes = data.DATASETS["cifar100"].classes
    assert len(set(classes)) == 100
    assert list(classes) == sorted(classes)
    assert [classes[k] for k in (0, 1, 8, 41, 58, 99)] == [
        "apple", "aquarium_fish", "bicycle", "lawn_mower", "pickup_truck", "worm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "problem"),
    [("nowhere", "no such folder"), ("empty", "found neither form of data"), ("file.tar.gz", "no such folder")],
)
def test_a_source_that_holds_no_data_is_refused(source: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=problem) as error:
        data.fetch("cifar10", str(tmp_path / source), tmp_path / "data")
    assert "train-*.parquet" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("call", [data.fetch, data.prepare, lambda name: data.corrupt(name, 10)])
def test_an_unknown_data_set_is_refused(call: Callable[[str], Any]) -> None:
    with pytest.raises(UserError, match=r"'mnist' is unknown; allowed are digits, cifar10, cifar100"):
        call("mnist")


def test_a_local_source_is_recorded_and_not_copied(sample: Sample, tmp_path: Path) -> None:
    folder = sample.write_parquet(tmp_path / "hub")
    record = data.fetch("cifar10", str(folder), tmp_path / "data")
    assert [path.name for path in data.raw_folder(tmp_path / "data", "cifar10").iterdir()] == ["source.json"]
    assert record.location == str(folder)
    assert {name: file.size for name, file in record.files.items()} == {
        path.name: path.stat().st_size for path in folder.iterdir()
    }


def test_a_relative_source_is_recorded_as_an_absolute_path(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.write_parquet(tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    assert data.fetch("cifar10", "hub", "data").location == str(tmp_path / "hub")


def test_decoding_shows_its_progress_on_a_terminal(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data.fetch("cifar10", str(sample.write_parquet(tmp_path / "hub")), tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    data.prepare("cifar10", tmp_path)
    shown = capsys.readouterr()
    assert "decode cifar10 train" in shown.err and "60/60" in shown.err
    assert shown.out == ""
