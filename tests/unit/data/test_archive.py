"""Archives and pickles of foreign origin can do nothing but give images."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.archive import read_batch, read_members
from pipeline.data.dataset import Split
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample

SHAPE = (2, 2, 3)


def read(pickled: bytes) -> Split:
    return read_batch(pickled, "labels", SHAPE, 10, "archive: batch")


def batch(**changes: Any) -> dict[str, Any]:
    return {"data": np.arange(24, dtype=np.uint8).reshape(2, 12), "labels": [3, 9], **changes}


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, pickle.loads])
def test_a_malicious_pickle_is_refused_before_it_acts(function: Any, protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    command = f"touch {trap}" if function is os.system else f"__import__('pathlib').Path({str(trap)!r}).touch()"
    pickled = pickle.dumps(batch(extra=Call(function, command)), protocol=protocol)
    with pytest.raises(UserError, match=r"archive: batch: not a batch of images \(it asks for .*not allowed"):
        read(pickled)
    assert not trap.exists()


def test_planes_become_pixels() -> None:
    split = read(pickle.dumps(batch()))
    np.testing.assert_array_equal(split.images[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(split.images[0, 0, 0], [0, 4, 8])
    assert split.labels.tolist() == [3, 9] and split.labels.dtype == np.int64


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": [3, 10]},
        {"labels": [-1, 3]},
        {"labels": [3]},
        {"labels": [3, True]},
        {"labels": "39"},
        {"data": np.zeros((2, 12), np.int64)},
        {"data": np.asfortranarray(np.zeros((2, 12), np.uint8))},
        {"data": np.zeros((2, 12), object)},
        {"data": b"0" * 24},
        {"data": [0] * 24},
    ],
    ids=str,
)
def test_a_batch_of_anything_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="archive: batch: not a batch of images"):
        read(pickle.dumps(batch(**wrong)))


def test_a_batch_without_its_labels_is_refused() -> None:
    with pytest.raises(UserError, match="not a batch of images"):
        read(pickle.dumps({"data": batch()["data"]}))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damaged_pickle_escapes_as_another_error(choices: st.DataObject) -> None:
    content = bytearray(pickle.dumps(batch(), protocol=choices.draw(st.sampled_from([2, 4, 5]))))
    if choices.draw(st.booleans()):
        content = content[: choices.draw(st.integers(0, len(content) - 1))]
    for _ in range(choices.draw(st.integers(1, 4))):
        if content:
            content[choices.draw(st.integers(0, len(content) - 1))] = choices.draw(st.integers(0, 255))
    try:
        split = read(bytes(content))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert split.images.shape == (len(split.labels), *SHAPE)


def test_members_outside_of_the_archive_are_never_written(sample: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    sample.write_tar(
        folder / "a.tar.gz",
        {"../outside": b"1", "/tmp/absolute": b"2", "batches/../../outside": b"3", "batches/test_batch": b"good"},
    )
    assert read_members(folder / "a.tar.gz", "batches", ["test_batch"]) == {"test_batch": b"good"}
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_batch_that_is_no_regular_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("batch")
        member.type, member.linkname = kind, "/etc/hostname"
        tar.addfile(member)
    with pytest.raises(UserError, match="has no file cifar/batch"):
        read_members(path, "cifar", ["batch"])


def test_members_come_in_the_order_asked_for(sample: Sample, tmp_path: Path) -> None:
    sample.write_tar(tmp_path / "a.tar.gz", {"two": b"2", "one": b"1"})
    assert list(read_members(tmp_path / "a.tar.gz", "cifar", ["one", "two"])) == ["one", "two"]


def test_a_damaged_archive_is_refused_wherever_it_is_damaged(sample: Sample, tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar.gz"
    sample.write_archive(whole, sample.python2_pickle)
    content = whole.read_bytes()
    for damaged in (b"", b"<html>not found</html>", content[: len(content) // 2]):
        path = tmp_path / "damaged.tar.gz"
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged\.tar\.gz: (not a tar archive|has no file)"):
            read_members(path, sample.dataset.batch_folder, ["test_batch"])


def test_an_archive_without_one_of_its_batches_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    (tmp_path / "empty.tar.gz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="has no file cifar/test, cifar/train"):
        read_members(tmp_path / "empty.tar.gz", "cifar", ["test", "train"])
