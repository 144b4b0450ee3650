"""Small data sets in the layout of CIFAR, written in each of the forms that the real ones come in."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import data
from pipeline.data.cifar import Cifar, Cifar10, Cifar100
from pipeline.data.dataset import Split


class SmallCifar10(Cifar10):
    train_images = 60
    test_images = 20


class SmallCifar100(Cifar100):
    train_images = 200
    test_images = 100


@pytest.fixture(autouse=True)
def small_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for small in (SmallCifar10(), SmallCifar100()):
        monkeypatch.setitem(data.DATASETS, small.name, small)


@dataclass
class Sample:
    """Random images of a small data set, and writers for the forms of source."""

    dataset: Cifar
    train: Split
    test: Split

    def split(self, name: str) -> Split:
        return self.train if name == "train" else self.test

    def write_archive(self, path: Path, pickled: Callable[[Any], bytes]) -> str:
        """The official layout; returns the MD5."""
        return self.write_tar(path, self.batches(pickled))

    def write_batches(self, folder: Path) -> Path:
        """The official archive, extracted into `folder`; returns the folder of the batches."""
        for name, content in self.batches(self.python2_pickle).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.dataset.batch_folder

    def batches(self, pickled: Callable[[Any], bytes]) -> dict[str, bytes]:
        """Content of the official archive, by path."""
        members = {f"{self.dataset.batch_folder}/readme.html": b"<html>"}
        for batches, split in ((self.dataset.train_batches, self.train), (self.dataset.test_batches, self.test)):
            parts = np.array_split(np.arange(len(split.labels)), len(batches))
            for batch, rows in zip(batches, parts, strict=True):
                planes = np.ascontiguousarray(split.images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1))
                content = {
                    "batch_label": batch,
                    self.dataset.batch_labels: split.labels[rows].tolist(),
                    "data": planes,
                    "filenames": [f"image_{row}.png" for row in rows],
                }
                members[f"{self.dataset.batch_folder}/{batch}"] = pickled(content)
        return members

    def write_parquet(self, folder: Path, image_format: str = "PNG", shards: int = 3, seed: int = 0) -> Path:
        """The hub's layout, rows in a random order."""
        column = "fine_label" if self.dataset.name == "cifar100" else "label"
        folder.mkdir(parents=True)
        for name in ("train", "test"):
            split, count = self.split(name), shards if name == "train" else 1
            order = np.random.default_rng(seed).permutation(len(split.labels))
            for index, rows in enumerate(np.array_split(order, count)):
                images = [{"bytes": self.encode(split.images[row], image_format), "path": f"{row}"} for row in rows]
                columns = {"img": images, column: split.labels[rows].tolist()}
                pq.write_table(pa.table(columns), folder / f"{name}-{index:05d}-of-{count:05d}.parquet")
        return folder

    def write_tree(self, folder: Path, image_format: str = "PNG") -> Path:
        """Class folders."""
        for name in ("train", "test"):
            split = self.split(name)
            for row, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                path = folder / name / self.dataset.classes[label] / f"{row:04d}.{image_format.lower()}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.encode(image, image_format))
        return folder

    @staticmethod
    def encode(image: np.ndarray, image_format: str = "PNG", **options: Any) -> bytes:
        if image_format == "WEBP":
            options = {"lossless": True, **options}
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, image_format, **options)
        return buffer.getvalue()

    @staticmethod
    def write_tar(path: Path, members: dict[str, bytes]) -> str:
        """A gzipped tar file of regular files; returns the MD5."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return hashlib.md5(path.read_bytes()).hexdigest()

    @staticmethod
    def python2_pickle(value: Any) -> bytes:
        """A pickle like those of the official batches."""
        buffer = io.BytesIO()
        _Python2Pickler(buffer, protocol=2).dump(value)
        return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


class _Python2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 wrote it, strings as bytes: the form of the official batches."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        content = value.encode("ascii") if isinstance(value, str) else value
        self.write(b"T" + len(content).to_bytes(4, "little") + content)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def sample_of(name: str, seed: int = 0) -> Sample:
    dataset = data.DATASETS[name]
    assert isinstance(dataset, Cifar)
    generator = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = generator.permutation(np.arange(count) % len(dataset.classes)).astype(np.int64)
        images = generator.integers(0, 256, (count, *dataset.image_shape), np.uint8)
        images[1] = images[0]  # real data have equal images, too, even with different labels
        return Split(images, labels)

    return Sample(dataset, split(dataset.train_images), split(dataset.test_images))


@pytest.fixture(params=["cifar10", "cifar100"])
def either_sample(request: pytest.FixtureRequest) -> Sample:
    return sample_of(request.param)


@pytest.fixture
def sample() -> Sample:
    return sample_of("cifar10")


@dataclass
class Server:
    """An HTTP server on the loopback interface that holds one file, and can misbehave."""

    url: str = ""
    content: bytes = b""
    ranges: bool = True
    status: int = 200
    cut_after: int | None = None  # bytes after which each connection is dropped
    requests: list[str | None] = field(default_factory=list)  # the Range header of each


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        state, header = self.state, self.headers["Range"]
        state.requests.append(header)
        if state.status != 200:
            self.send_error(state.status)
            return
        start = int(header.removeprefix("bytes=").rstrip("-")) if header and state.ranges else 0
        if start >= len(state.content) > 0:
            self.send_error(416)
            return
        body = state.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: state.cut_after])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/archive.tar.gz"
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield state
        running.shutdown()


@pytest.fixture
def official(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sample, Path], Server]:
    """Serve a small archive in the place of torchvision's."""
    import torchvision

    def serve(sample: Sample, folder: Path) -> Server:
        archive = folder / "served" / "archive.tar.gz"
        md5 = sample.write_archive(archive, sample.python2_pickle)
        known = getattr(torchvision.datasets, sample.dataset.torchvision_name)
        for name, value in {"url": server.url, "tgz_md5": md5, "filename": "archive.tar.gz"}.items():
            monkeypatch.setattr(known, name, value)
        server.content = archive.read_bytes()
        return server

    return serve
