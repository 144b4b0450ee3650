"""Parquet shards: the hub's layout is read, anything incomplete or damaged is refused in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import data
from pipeline.data.cifar import Cifar10
from pipeline.data.parquet import read_shards
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample

FIRST = "train-00000-of-00003.parquet"
FORMS: dict[str, Callable[[int, list[str]], Any]] = {
    **dict.fromkeys(("integer", "plain", "ClassLabel", "ClassLabel in another order"), lambda number, names: number),
    **dict.fromkeys(("name", "dictionary"), lambda number, names: names[number]),
    **dict.fromkeys(("float", "float in another order"), lambda number, names: float(number)),
    **dict.fromkeys(("digits", "digits in another order"), lambda number, names: str(number)),
}
"""Labels in the column, by number and names of the classes; those in another order are told by the metadata."""


@pytest.fixture
def shards(sample: Sample, tmp_path: Path) -> Path:
    return sample.write_parquet(tmp_path / "hub")


def fetch(folder: Path) -> None:
    data.fetch("cifar10", str(folder), folder.parent / "data")


def prepare(folder: Path) -> None:
    fetch(folder)
    data.prepare("cifar10", folder.parent / "data")


def rewrite(path: Path, change: Callable[[dict[str, list[Any]]], Any]) -> None:
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def set_value(column: str, value: Any) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[column][0] = value

    return change


def rename(old: str, new: str) -> Callable[[dict[str, list[Any]]], None]:
    return lambda columns: columns.update({new: columns.pop(old)})


@pytest.mark.parametrize("place", ["", "data", "plain_text", "cifar10"])
def test_shards_are_found_in_the_folder_or_one_below(sample: Sample, place: str, tmp_path: Path) -> None:
    sample.write_parquet(tmp_path / "hub" / place)
    prepare(tmp_path / "hub")


def test_shards_in_two_places_are_refused(sample: Sample, tmp_path: Path) -> None:
    for place in ("data", "plain_text"):
        sample.write_parquet(tmp_path / "hub" / place)
    with pytest.raises(UserError, match=r"in several places: .*data \(parquet\), .*plain_text \(parquet\); give one"):
        fetch(tmp_path / "hub")


def test_other_columns_are_passed_over(shards: Path) -> None:
    for path in shards.iterdir():
        rewrite(path, lambda columns: columns.update(coarse_label=columns["label"], split=columns["label"]))
    prepare(shards)


def test_a_shard_may_carry_the_hash_that_the_hub_appends(shards: Path) -> None:
    for path in shards.iterdir():
        path.rename(path.with_name(f"{path.stem}-0123456789abcdef.parquet"))
    prepare(shards)


def test_cifar100_takes_the_fine_labels(either_sample: Sample, tmp_path: Path) -> None:
    dataset = either_sample.dataset
    folder = either_sample.write_parquet(tmp_path / "hub")
    columns = set(pq.read_schema(folder / FIRST).names)
    assert columns == {"img", "fine_label" if dataset.name == "cifar100" else "label"}
    if dataset.name == "cifar100":
        for path in folder.iterdir():
            rewrite(path, lambda table: table.update(label=[0] * len(table["img"])))  # coarse ones, perhaps
    data.fetch(dataset.name, str(folder), tmp_path)
    data.prepare(dataset.name, tmp_path)


@pytest.mark.parametrize("index", [0, 2])
def test_a_missing_shard_is_named(shards: Path, index: int) -> None:
    (shards / f"train-{index:05d}-of-00003.parquet").unlink()
    with pytest.raises(UserError, match=f"missing: train-{index:05d}-of-00003.parquet"):
        fetch(shards)


def test_a_missing_split_is_named(shards: Path) -> None:
    (shards / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"no test-\*\.parquet"):
        fetch(shards)


def test_a_wrong_number_of_rows_is_refused(shards: Path) -> None:
    pq.write_table(pq.read_table(shards / FIRST).slice(1), shards / FIRST)
    with pytest.raises(UserError, match="59 train rows in 3 shards, expected 60"):
        fetch(shards)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (rename("img", "picture"), "columns label, picture; needed is one of img, image"),
        (rename("label", "coarse_label"), "columns img, coarse_label; needed is one of label, labels, fine_labels?"),
        (lambda columns: columns.update(image=columns["img"]), "columns img, label, image; needed is one of img, im"),
        (
            lambda columns: columns.update(img=["x"] * len(columns["img"])),
            "column img is string, needed is binary, or a",
        ),
        (
            lambda columns: columns.update(img=[{"bytes": "iVBOR", "path": "a.png"}] * len(columns["img"])),
            "column img.bytes is string, needed is binary",
        ),
        (
            lambda columns: columns.update(label=[0.5] * len(columns["img"])),
            "column label has labels that are not cl.*: 0.5",
        ),
        (lambda columns: columns.update(label=[True] * len(columns["img"])), "column label is bool, needed are whole"),
    ],
)
def test_other_columns_than_those_needed_are_refused_at_once(
    shards: Path, change: Callable[[dict[str, list[Any]]], Any], problem: str
) -> None:
    rewrite(shards / FIRST, change)
    with pytest.raises(UserError, match=problem):
        fetch(shards)


def test_a_column_that_is_there_twice_is_refused(shards: Path) -> None:
    table = pq.read_table(shards / FIRST)
    pq.write_table(table.append_column("label", table["label"]), shards / FIRST)
    with pytest.raises(UserError, match="columns img, label, label; needed is one of label"):
        fetch(shards)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_value("label", 10), "label 10, allowed are 0 to 9"),
        (set_value("label", -1), "label -1, allowed are 0 to 9"),
        (set_value("label", None), "no image bytes or no label"),
        (set_value("img", None), "no image bytes or no label"),
        (set_value("img", {"bytes": None, "path": "a.png"}), "no image bytes or no label"),
        (set_value("img", {"bytes": b"", "path": "a.png"}), "not an image of a known lossless format"),
        (set_value("img", {"bytes": b"\x89PNG\r\n\x1a\n", "path": "a.png"}), "damaged PNG image"),
    ],
)
def test_a_wrong_row_is_named(shards: Path, change: Callable[[dict[str, list[Any]]], None], problem: str) -> None:
    rewrite(shards / FIRST, change)
    with pytest.raises(UserError, match=f"{FIRST} row 0: {problem}"):
        prepare(shards)
    assert not data.prepared_folder(shards.parent / "data", "cifar10").exists()


def test_too_few_images_of_a_class_are_refused(shards: Path) -> None:
    label = pq.read_table(shards / FIRST)["label"][0].as_py()
    rewrite(shards / FIRST, set_value("label", (label + 1) % 10))
    with pytest.raises(UserError, match=r"cifar10: train has [57] images of \w+, expected 6; train has [57] images of"):
        prepare(shards)


def test_images_of_another_size_are_refused(sample: Sample, shards: Path) -> None:
    small = sample.encode(np.zeros((16, 31, 3), np.uint8))
    rewrite(shards / FIRST, set_value("img", {"bytes": small, "path": "a.png"}))
    with pytest.raises(UserError, match=f"{FIRST} row 0: 31x16 pixels, expected 32x32"):
        prepare(shards)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_lossy_images_are_refused(sample: Sample, shards: Path, image_format: str) -> None:
    lossy = sample.encode(sample.train.images[0], image_format, lossless=False)
    rewrite(shards / FIRST, set_value("img", {"bytes": lossy, "path": "a"}))
    with pytest.raises(UserError, match=f"{FIRST} row 0: .* lossy"):
        prepare(shards)


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "labels"), ("image", "fine_labels")])
@pytest.mark.parametrize("form", FORMS)
def test_columns_and_labels_as_users_have_them_give_the_same_arrays(
    either_sample: Sample, image: str, label: str, form: str, tmp_path: Path
) -> None:
    name, classes = either_sample.dataset.name, either_sample.dataset.classes
    folder = either_sample.write_parquet(tmp_path / "hub")
    data.fetch(name, str(folder), tmp_path)
    expected = data.prepare(name, tmp_path)["checksum"]
    for path in folder.iterdir():
        images, numbers = (column.to_pylist() for column in pq.read_table(path).columns)
        names = ["cra" if name == "crab" else name for name in classes]  # as on the hub
        if "another order" in form:
            names.reverse()
            numbers = [len(classes) - 1 - number for number in numbers]
        kind = form.partition(" ")[0]
        values = pa.array([FORMS[kind](number, names) for number in numbers])
        if kind == "plain":
            images = [encoded["bytes"] for encoded in images]
        table = pa.table({image: images, label: values.dictionary_encode() if kind == "dictionary" else values})
        if form.startswith(("ClassLabel", "float in", "digits in")):
            info = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        pq.write_table(table, path)
    data.fetch(name, str(folder), tmp_path)
    assert data.prepare(name, tmp_path)["checksum"] == expected


def with_names(shards: Path, names: list[Any]) -> None:
    info = {"info": {"features": {"label": {"names": names}}}}
    for path in shards.iterdir():
        pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps(info)}), path)


def test_names_in_the_metadata_that_are_not_the_classes_are_refused_unless_the_order_is_clear(shards: Path) -> None:
    classes = list(Cifar10.classes)
    with_names(shards, [*classes[:9], "lorry"])
    fetch(shards)
    with_names(shards, [str(index) for index in range(10)])
    fetch(shards)
    for names in ([*classes[:8], "lorry", "boat"], [*classes[::-1][:9], "lorry"], [*classes[:9], "cat"], classes[:9]):
        with_names(shards, names)
        with pytest.raises(UserError, match=r"column label: its \d+ names in the metadata are not the 10 classes"):
            fetch(shards)


def test_names_of_classes_that_are_unknown_are_all_listed(shards: Path) -> None:
    for path in shards.iterdir():
        rewrite(
            path, lambda columns: columns.update(label=["Truck", "lorry", "boat", *["cat"] * 30][: len(columns["img"])])
        )
    with pytest.raises(
        UserError, match=r"labels that are not classes: boat, lorry; the classes are airplane"
    ) as caught:
        fetch(shards)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("lorry") == 1 and f"{FIRST}, train-00001-of-00003.parquet" in str(caught.value)


@pytest.mark.parametrize(
    "form",
    [
        *("{split}.parquet", "{split}_{index}.parquet", "{split}/{index:04d}.parquet", "{split}.PARQUET"),
        *("cifar10-{split}-00000-of-00001.parquet", "CIFAR10_{split}.parquet", "{upper}-00000-of-00001.parquet"),
        "{upper}/0.parquet",
    ],
)
def test_names_of_files_as_users_and_the_hub_write_them(sample: Sample, form: str, tmp_path: Path) -> None:
    written = sample.write_parquet(tmp_path / "written", shards=1)
    for path in written.iterdir():
        split = path.name.partition("-")[0]
        target = tmp_path / "hub" / "plain_text" / form.format(split=split, upper=split.upper(), index=0)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    prepare(tmp_path / "hub")


@pytest.mark.parametrize("given_as", ["", "snapshots", "snapshots/0123abc", "snapshots/0123abc/plain_text"])
def test_the_cache_of_the_hub_is_a_source(sample: Sample, given_as: str, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "snapshots" / "0123abc" / "plain_text"
    written = sample.write_parquet(tmp_path / "hub" / "blobs")
    snapshot.mkdir(parents=True)
    for path in [*written.iterdir()]:
        blob = path.rename(path.with_name(hashlib.sha256(path.read_bytes()).hexdigest()))
        (snapshot / path.name).symlink_to(f"../../../blobs/{blob.name}")
    data.fetch("cifar10", str(tmp_path / "hub" / given_as), tmp_path)
    data.prepare("cifar10", tmp_path)


def test_shards_in_two_snapshots_are_refused(sample: Sample, tmp_path: Path) -> None:
    for place in ("one", "two"):
        sample.write_parquet(tmp_path / "hub" / "snapshots" / place / "data")
    with pytest.raises(UserError, match=r"in several places: .*one/data \(parquet\), .*two/data \(parquet\); give one"):
        fetch(tmp_path / "hub")


@pytest.mark.parametrize("missing", ["CIFAR10-Train-00001-of-00003.parquet"])
def test_a_missing_shard_is_named_in_the_spelling_of_the_others(shards: Path, missing: str) -> None:
    for path in [*shards.glob("train*")]:
        path.rename(path.with_name(path.name.replace("train", "CIFAR10-Train")))
    (shards / missing).unlink()
    with pytest.raises(UserError, match=f"missing: {missing}"):
        fetch(shards)


def test_other_splits_are_passed_over(shards: Path) -> None:
    for name in ("validation-00000-of-00001", "unsupervised-00000-of-00001", "training-notes", "testing"):
        (shards / f"{name}.parquet").write_bytes((shards / FIRST).read_bytes())
    prepare(shards)


def test_all_that_is_wrong_with_shards_is_listed_in_one_line(shards: Path) -> None:
    rewrite(shards / FIRST, rename("label", "y"))
    (shards / "train-00001-of-00003.parquet").unlink()
    (shards / "train-00002-of-00003.parquet").write_bytes(b"PAR1")
    (shards / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError) as caught:
        fetch(shards)
    for problem in (
        "missing: train-00001",
        f"{FIRST}: columns img, y",
        "train-00002-of-00003.parquet: dama",
        "no test-",
    ):
        assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shard_changed_since_it_was_fetched_is_named(shards: Path) -> None:
    fetch(shards)
    content = bytearray((shards / FIRST).read_bytes())
    content[100] ^= 1
    (shards / FIRST).write_bytes(content)
    with pytest.raises(UserError, match=f"{FIRST}: its content has changed since cifar10 was fetched"):
        data.prepare("cifar10", shards.parent / "data")


def test_a_truncated_shard_is_refused(shards: Path) -> None:
    content = (shards / FIRST).read_bytes()
    for length in (0, 3, 100, len(content) // 2, len(content) - 1):
        (shards / FIRST).write_bytes(content[:length])
        with pytest.raises(UserError, match=f"{FIRST}: damaged Parquet file"):
            fetch(shards)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damaged_shard_escapes_as_another_error(shards: Path, choices: st.DataObject) -> None:
    content = bytearray((shards / "test-00000-of-00001.parquet").read_bytes())
    for _ in range(choices.draw(st.integers(1, 3))):
        content[choices.draw(st.integers(0, len(content) - 1))] = choices.draw(st.integers(0, 255))
    (shards / "damaged.parquet").write_bytes(content)
    try:
        for record in read_shards(shards, ["damaged.parquet"], Cifar10.classes):
            assert isinstance(record.encoded, bytes) and isinstance(record.label, int)
    except UserError as error:
        assert "\n" not in str(error)
