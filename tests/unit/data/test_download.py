"""The official archive: resumed, verified, fetched again, or placed by hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import data
from pipeline.data.download import DownloadError, download
from pipeline.utils.errors import UserError

if TYPE_CHECKING:
    from tests.unit.data.conftest import Sample, Server

CONTENT = os.urandom(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def target(server: Server, tmp_path: Path) -> Path:
    server.content = CONTENT
    return tmp_path / "raw" / "file"


def part_of(target: Path, content: bytes) -> Path:
    target.parent.mkdir(exist_ok=True)
    part = target.with_name("file.part")
    part.write_bytes(content)
    return part


def assert_complete(target: Path) -> None:
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_file_arrives_whole(server: Server, target: Path) -> None:
    download(server.url, target, MD5)
    assert_complete(target)


def test_a_partial_download_is_completed(server: Server, target: Path) -> None:
    part_of(target, CONTENT[:100_000])
    download(server.url, target, MD5)
    assert_complete(target)
    assert server.requests == ["bytes=100000-"]


def test_a_server_that_ignores_ranges_sends_all_again(server: Server, target: Path) -> None:
    server.ranges = False
    part_of(target, CONTENT[:100_000])
    download(server.url, target, MD5)
    assert_complete(target)
    assert len(server.requests) == 1


def test_a_damaged_partial_download_is_fetched_again(server: Server, target: Path) -> None:
    part_of(target, bytes(100_000))
    download(server.url, target, MD5)
    assert_complete(target)
    assert server.requests == ["bytes=100000-", None]


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_partial_download_that_has_everything_needs_no_more(server: Server, target: Path, extra: bytes) -> None:
    part_of(target, CONTENT + extra)
    download(server.url, target, MD5)
    assert_complete(target)


def test_a_connection_that_breaks_is_taken_up_again(server: Server, target: Path) -> None:
    server.cut_after = 70_000
    download(server.url, target, MD5)
    assert_complete(target)
    assert server.requests == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"]


def test_a_connection_that_always_breaks_leaves_what_arrived(server: Server, target: Path) -> None:
    server.cut_after = 100
    with pytest.raises(DownloadError, match="10 attempts were cut off"):
        download(server.url, target, MD5)
    assert target.with_name("file.part").read_bytes() == CONTENT[:1000]


def test_a_wrong_file_is_refused_and_removed(server: Server, target: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match=f"has the MD5 [0-9a-f]{{32}}, expected {MD5}"):
        download(server.url, target, MD5)
    assert list(target.parent.iterdir()) == []


def test_a_missing_file_is_not_asked_for_twice(server: Server, target: Path) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="404"):
        download(server.url, target, MD5)
    assert len(server.requests) == 1


def test_the_official_archive_is_fetched_once(
    sample: Sample, official: Callable[[Sample, Path], Server], tmp_path: Path
) -> None:
    server = official(sample, tmp_path)
    first, second = (data.fetch("cifar10", "official", tmp_path) for _ in range(2))
    assert first == second and len(server.requests) == 1
    assert (data.raw_folder(tmp_path, "cifar10") / "archive.tar.gz").read_bytes() == server.content


def test_a_damaged_archive_is_fetched_again(
    sample: Sample, official: Callable[[Sample, Path], Server], tmp_path: Path
) -> None:
    server = official(sample, tmp_path)
    archive = data.raw_folder(tmp_path, "cifar10") / "archive.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(server.content[:-1])
    data.fetch("cifar10", "official", tmp_path)
    assert archive.read_bytes() == server.content


def test_an_archive_placed_by_hand_needs_no_network(
    sample: Sample, official: Callable[[Sample, Path], Server], tmp_path: Path
) -> None:
    server = official(sample, tmp_path)
    archive = data.raw_folder(tmp_path, "cifar10") / "archive.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(server.content)
    data.fetch("cifar10", "official", tmp_path)
    data.prepare("cifar10", tmp_path)
    assert server.requests == []


def test_an_archive_damaged_after_it_was_fetched_is_not_prepared(
    sample: Sample, official: Callable[[Sample, Path], Server], tmp_path: Path
) -> None:
    official(sample, tmp_path)
    data.fetch("cifar10", "official", tmp_path)
    archive = data.raw_folder(tmp_path, "cifar10") / "archive.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"archive\.tar\.gz: its size has changed from \d+ to \d+ bytes"):
        data.prepare("cifar10", tmp_path)


def test_without_a_network_the_message_says_what_to_put_where(
    sample: Sample, official: Callable[[Sample, Path], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    official(sample, tmp_path)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/archive.tar.gz")
    with pytest.raises(UserError) as error:
        data.fetch("cifar10", "official", tmp_path)
    message = str(error.value)
    archive = data.raw_folder(tmp_path, "cifar10") / "archive.tar.gz"
    assert "http://127.0.0.1:9/archive.tar.gz cannot be downloaded" in message
    assert f"put that file at {archive} by hand" in message
    assert "train-*.parquet" in message and "train/<class>/*.png" in message
    assert "\n" not in message
