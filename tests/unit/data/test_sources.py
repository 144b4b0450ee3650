"""The prepared arrays do not depend on where the data came from."""

from __future__ import annotations

import pickle
import tarfile
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
        "extracted folder": str(sample.write_batches(tmp_path / "extracted")),
        "its parent": str(tmp_path / "extracted"),
        "archive file": str(tmp_path / "served" / "archive.tar.gz"),
        "folder of the archive": str(tmp_path / "downloads"),
        "torchvision's root": str(tmp_path / "torchvision"),
        "archive packed again": str(tmp_path / "again.tar"),
        "folder with an archive packed again": str(tmp_path / "unpacked"),
        "folder of two downloads": str(tmp_path / "twice"),
        "folder of a second download": str(tmp_path / "second"),
    }
    stem = sample.dataset.archive_name.removesuffix(".tar.gz")
    (tmp_path / "downloads").mkdir()
    served = tmp_path / "served" / "archive.tar.gz"
    (tmp_path / "downloads" / sample.dataset.archive_name).write_bytes(served.read_bytes())
    sample.write_batches(tmp_path / "torchvision")
    (tmp_path / "torchvision" / sample.dataset.archive_name).write_bytes(served.read_bytes())
    with tarfile.open(tmp_path / "again.tar", "w") as tar:
        tar.add(tmp_path / "extracted" / sample.dataset.batch_folder, f"./{sample.dataset.batch_folder}")
    for copy in (
        f"twice/{stem}.tar.gz",
        f"twice/{stem} (1).tar.gz",
        f"second/{stem} (1).tar.gz",
        f"unpacked/{stem}.tar",
    ):
        (tmp_path / copy).parent.mkdir(exist_ok=True)
        (tmp_path / copy).write_bytes((tmp_path / "again.tar" if copy.endswith(".tar") else served).read_bytes())
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
    [
        ("nowhere", "no such file or folder; allowed are the archive"),
        ("empty", "no cifar10 there, it holds nothing; needed is the archive"),
        ("loop", "no such file or folder"),
        ("~nobody-here/x", "no such file or folder"),
        ("empty\0", "a path has no NUL character"),
        ("others", r"it holds cifar-100-python, test\.zip; needed is"),
        ("empty.tar.gz", r"empty\.tar\.gz: (not a tar archive, or a damaged one|has no file)"),
        ("cut.tar.gz", r"cut\.tar\.gz: not a tar archive, or a damaged one"),
        ("archive.zip", r"archive\.zip: a zip archive; extract it, and give the folder as the source$"),
        (
            "shard",
            r"shard: a single Parquet file; give the folder with all of train-\*\.parquet and test-\*\.parquet as",
        ),
        (
            "one/cifar-10-batches-py/test_batch",
            r"test_batch: a single batch; give the folder with all of them, or the ar",
        ),
        ("matlab.tar.gz", r"has no file cifar-10-batches-py/data_batch_1, .*/test_batch; needed .* Python version"),
        ("cifar-10-batches-py", r"has no file data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch"),
        ("two", r"in several places: .*two/a \(batches\), .*two/b \(folders\); give one of them as the source"),
    ],
)
def test_a_source_that_holds_no_data_or_several_is_refused_and_says_what_to_do(
    source: str, problem: str, sample: Sample, tmp_path: Path
) -> None:
    for folder in ("empty", "others/cifar-100-python", "cifar-10-batches-py", "two"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "others" / "test.zip").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    (tmp_path / "archive.zip").write_bytes(b"PK\3\4" + bytes(1000))
    (tmp_path / "shard").write_bytes(
        (sample.write_parquet(tmp_path / "hub") / "test-00000-of-00001.parquet").read_bytes()
    )
    sample.write_batches(tmp_path / "one")
    sample.write_archive(tmp_path / "cut.tar.gz", sample.python2_pickle)
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "cut.tar.gz").read_bytes()[:50_000])
    sample.write_tar(tmp_path / "matlab.tar.gz", {"cifar-10-batches-mat/data_batch_1.mat": b""})
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"")
    sample.write_batches(tmp_path / "two").rename(tmp_path / "two" / "a")
    sample.write_tree(tmp_path / "two" / "b")
    with pytest.raises(UserError, match=problem) as error:
        data.fetch("cifar10", source if source[0] == "~" else str(tmp_path / source), tmp_path / "data")
    assert str(error.value).isprintable()
    assert not (tmp_path / "data").exists()


def test_a_damaged_archive_beside_its_extracted_batches_does_not_count(sample: Sample, tmp_path: Path) -> None:
    sample.write_batches(tmp_path / "root")
    (tmp_path / "root" / sample.dataset.archive_name).write_bytes(b"half of it")
    assert data.fetch("cifar10", str(tmp_path / "root"), tmp_path).kind == "batches"


def test_other_data_sets_in_the_same_folder_do_not_count(sample: Sample, tmp_path: Path) -> None:
    sample.write_batches(tmp_path / "root")
    for folder in ("cifar-100-python", "imagenet/train/n01440764", "imagenet/test/n01440764"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    assert data.fetch("cifar10", str(tmp_path / "root"), tmp_path).kind == "batches"


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
