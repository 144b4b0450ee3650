"""Prepared images in an object store: the manifest is uploaded last; a node downloads the complete folder once."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from pipeline import data
from pipeline.cli import main
from pipeline.data import packing, remote
from pipeline.data.manifest import checksum_of
from pipeline.data.remote import CACHE, ensure_local, upload
from pipeline.data.shards import open_image_shards
from pipeline.settings import config
from pipeline.utils.errors import UserError
from pipeline.utils.object_store import ObjectStore
from tests.s3_server import BUCKET, CREDENTIALS, S3Server, s3_server
from tests.unit.data.image_tree import SmallImageNet, write_tree


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with s3_server() as running:
            yield running


@pytest.fixture
def url(server: S3Server, tmp_path: Path) -> str:
    return server.url(f"{tmp_path.name}/datasets")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in several shards, and six in others."""
    root = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "imagenet", SmallImageNet())
        data.fetch("imagenet", str(write_tree(root / "tree")), root)
        packing.prepare_images("imagenet", data.raw_folder(root, "imagenet"), root / "prepared", shard_bytes=4000)
    assert len(list((root / "prepared").glob("*.bin"))) > 4
    return root / "prepared"


@pytest.fixture
def prepared(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "prepared"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr("pipeline.utils.object_store.RETRY_SECONDS", 0.01)
    return tmp_path / "cache"


def checksum(prepared: Path) -> str:
    return str(json.loads((prepared / "manifest.json").read_text())["checksum"])


def folder_of(prepared: Path) -> str:
    return f"imagenet-{checksum(prepared)[:12]}"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def there(url: str, prepared: Path) -> dict[str, bytes]:
    store = ObjectStore(url)
    return {name: store.read(f"{folder_of(prepared)}/{name}") for name in store.files(folder_of(prepared))}


def download(prepared: Path, url: str) -> Path:
    """As a worker does on a node that has no prepared folder."""
    return ensure_local(prepared.with_name("elsewhere"), "imagenet", checksum(prepared), url)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are sent from now on, in the order in which they have arrived."""
    names: list[str] = []
    send = ObjectStore.upload

    def noting(self: ObjectStore, source: Path, path: str, advance: Callable[[int], None]) -> None:
        send(self, source, path, advance)
        names.append(source.name)

    monkeypatch.setattr(ObjectStore, "upload", noting)
    return names


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files, except for manifests, that are read from the store from now on."""
    names: list[str] = []
    chunks = ObjectStore.chunks

    def noting(self: ObjectStore, path: str) -> Iterator[bytes]:
        if not path.endswith("/manifest.json"):
            names.append(path.rpartition("/")[2])
        return chunks(self, path)

    monkeypatch.setattr(ObjectStore, "chunks", noting)
    return names


def test_a_folder_named_by_its_content_is_sent_the_manifest_last(prepared: Path, url: str, sent: list[str]) -> None:
    names = upload(prepared, url)
    assert there(url, prepared) == content(prepared)
    assert sent == names and sorted(names) == sorted(content(prepared))
    assert sent[-1] == names[-1] == "manifest.json"


def test_what_is_there_is_not_sent_again(prepared: Path, url: str, sent: list[str]) -> None:
    upload(prepared, url)
    sent.clear()
    assert upload(prepared, url) == sent == []


def test_an_interrupted_upload_continues_with_the_next_file(
    prepared: Path, url: str, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send, begun = ObjectStore.upload, [0]

    def send_some(self: ObjectStore, *arguments: object) -> None:
        begun[0] += 1
        if begun[0] > 2:
            raise KeyboardInterrupt
        send(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "upload", send_some)
        with pytest.raises(KeyboardInterrupt):
            upload(prepared, url)
    first = set(sent)
    assert len(first) == 2 and begun == [3]
    assert set(there(url, prepared)) == first
    sent.clear()
    upload(prepared, url)
    assert not first & set(sent)
    assert there(url, prepared) == content(prepared)


def test_an_object_of_another_size_is_sent_again(prepared: Path, url: str) -> None:
    upload(prepared, url)
    ObjectStore(url).write(f"{folder_of(prepared)}/train-00001.bin", b"half of it")
    assert upload(prepared, url) == ["train-00001.bin"]
    assert there(url, prepared) == content(prepared)


def test_a_file_is_sent_in_chunks_and_what_was_cut_off_does_not_stay(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.utils.object_store.CHUNK", 1000)
    (tmp_path / "shard.bin").write_bytes(bytes(4500))
    store, sizes = ObjectStore(url), list[int]()
    store.upload(tmp_path / "shard.bin", "shard.bin", sizes.append)
    assert sizes == [1000] * 4 + [500] and [len(part) for part in store.chunks("shard.bin")] == sizes

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.upload(tmp_path / "shard.bin", "other.bin", stop)
    assert set(store.files("")) == {"shard.bin"}


@pytest.mark.parametrize("place", ["memory://laboratory/datasets", "file://{}/datasets"])
def test_any_place_that_fsspec_or_pyarrow_opens_will_do(
    prepared: Path, place: str, cache: Path, tmp_path: Path
) -> None:
    where = place.format(tmp_path)
    upload(prepared, where)
    assert upload(prepared, where) == []
    assert content(download(prepared, where)) == content(prepared)


@pytest.mark.parametrize("what", ["missing bucket", "not writable"])
def test_a_remote_that_does_not_answer_is_one_line_and_the_packed_folder_stays(
    prepared: Path, server: S3Server, what: str
) -> None:
    url = server.url("datasets").replace(BUCKET, "nosuch") if what == "missing bucket" else "file:///proc/datasets"
    before = content(prepared)
    with pytest.raises(UserError) as caught:
        upload(prepared, url)
    assert str(caught.value).startswith(f"data.remote = '{url}': ") and "\n" not in str(caught.value)
    assert str(prepared) in str(caught.value)
    assert content(prepared) == before


def test_a_node_without_the_folder_downloads_it_and_another_run_finds_it(
    prepared: Path, url: str, cache: Path, read: list[str]
) -> None:
    upload(prepared, url)
    copy = download(prepared, url)
    assert copy == cache / folder_of(prepared)
    assert content(copy) == content(prepared)
    assert sorted(path.name for path in cache.iterdir()) == [f".{copy.name}.lock", copy.name]
    open_image_shards(copy, verify=True)
    read.clear()
    assert download(prepared, url) == copy and not read


def test_a_node_that_has_the_folder_downloads_nothing(prepared: Path, cache: Path) -> None:
    nowhere = "s3://nosuch/datasets?endpoint_override=127.0.0.1:1&scheme=http"
    assert ensure_local(prepared, "imagenet", checksum(prepared), nowhere) == prepared
    assert not cache.exists()


def test_a_node_whose_folder_has_other_images_downloads_those_of_the_run(
    prepared: Path, url: str, cache: Path, tmp_path: Path
) -> None:
    upload(prepared, url)
    other = Path(shutil.copytree(prepared, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "checksum": "0" * 64}))
    assert ensure_local(other, "imagenet", checksum(prepared), url) == cache / folder_of(prepared)
    assert ensure_local(other, "imagenet", checksum(prepared), None) == other  # and is refused when it is opened


def test_workers_of_one_node_download_it_once(prepared: Path, url: str, cache: Path, read: list[str]) -> None:
    upload(prepared, url)
    together = threading.Barrier(3)

    def work(_: int) -> Path:
        together.wait()
        return download(prepared, url)

    with ThreadPoolExecutor(3) as workers:
        assert set(workers.map(work, range(3))) == {cache / folder_of(prepared)}
    assert sorted(read) == sorted(set(content(prepared)) - {"manifest.json"})


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1] + b"?", lambda whole: whole[:-1], lambda whole: b""])
def test_a_damaged_object_is_refused_by_name_and_no_folder_appears(
    prepared: Path, url: str, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    upload(prepared, url)
    path = f"{folder_of(prepared)}/train-00001.bin"
    ObjectStore(url).write(path, damage((prepared / "train-00001.bin").read_bytes()))
    with pytest.raises(UserError) as caught:
        download(prepared, url)
    assert str(caught.value).startswith(f"data.remote = '{url}': {path} is damaged (") and "\n" not in str(caught.value)
    assert not (cache / folder_of(prepared)).exists()


def test_a_manifest_whose_files_lie_outside_the_folder_is_refused(url: str, cache: Path) -> None:
    files = {"../outside": "0" * 64}
    manifest = {"checksum": checksum_of(files), "files": files, "sizes": {"../outside": 1}}
    folder = f"imagenet-{manifest['checksum'][:12]}"
    ObjectStore(url).write(f"{folder}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        ensure_local(cache / "elsewhere", "imagenet", str(manifest["checksum"]), url)
    assert not (cache / "outside").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("manifest.json", "run prepare"), ("manifest.json", None), ("val.npy", None)]
)
def test_a_folder_that_is_not_whole_is_refused_by_what_it_lacks(
    prepared: Path, url: str, cache: Path, name: str, text: str | None
) -> None:
    upload(prepared, url)
    store, path = ObjectStore(url), f"{folder_of(prepared)}/{name}"
    store.write(path, text.encode()) if text else store.delete(path)
    with pytest.raises(UserError, match=rf"{path} is {'damaged' if text else 'missing'}; .*prepare") as caught:
        download(prepared, url)
    assert "\n" not in str(caught.value)
    assert not (cache / folder_of(prepared)).exists()


def test_what_was_downloaded_before_an_interruption_is_not_downloaded_again(
    prepared: Path, url: str, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(prepared, url)
    monkeypatch.setattr(remote, "PARALLEL_DOWNLOADS", 1)
    chunks = ObjectStore.chunks

    def cut_off(self: ObjectStore, path: str) -> Iterator[bytes]:
        if len(read) == 2:
            raise KeyboardInterrupt
        return chunks(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "chunks", cut_off)
        with pytest.raises(KeyboardInterrupt):
            download(prepared, url)
    first = set(read)
    read.clear()
    assert len(first) == 2 and not (cache / folder_of(prepared)).exists()
    assert content(download(prepared, url)) == content(prepared)
    assert read and not first & set(read)


def test_a_copy_that_has_lost_or_changed_a_file_since_gets_that_file_again(
    prepared: Path, url: str, cache: Path, read: list[str]
) -> None:
    upload(prepared, url)
    copy = download(prepared, url)
    (copy / "train-00000.bin").unlink()
    (copy / "val.npy").write_bytes(bytes((copy / "val.npy").stat().st_size))
    read.clear()
    assert content(download(prepared, url)) == content(prepared)
    assert sorted(read) == ["train-00000.bin", "val.npy"]


def test_a_store_that_is_away_for_a_while_is_asked_again(
    prepared: Path, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(prepared, url)
    chunks, away = ObjectStore.chunks, [3]

    def sometimes(self: ObjectStore, path: str) -> Iterator[bytes]:
        if away[0]:
            away[0] -= 1
            raise OSError("no route to host")
        return chunks(self, path)

    monkeypatch.setattr(ObjectStore, "chunks", sometimes)
    assert content(download(prepared, url)) == content(prepared)
    shutil.rmtree(cache)
    away[0] = 1000
    with pytest.raises(OSError, match="no route to host"):  # which Ray tries again: it is no mistake of the user's
        download(prepared, url)


def test_too_little_space_is_reported_before_anything_is_downloaded(
    prepared: Path, url: str, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(prepared, url)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=rf"{cache}: .* of imagenet do not fit in .*; {CACHE} names another folder"):
        download(prepared, url)
    assert not read


def test_the_cache_is_where_the_node_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "scratch"))
    assert remote.cache_folder() == tmp_path / "scratch"
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert remote.cache_folder() == tmp_path / "xdg" / "residual-attention"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert remote.cache_folder() == tmp_path / ".cache" / "residual-attention"


@pytest.fixture
def project(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml of a profile of images, which have been fetched."""
    root = Path(__file__).parents[3]
    config.compose("imagenet", [f"data.remote='{url}'"], tmp_path / "params.yaml", root)
    monkeypatch.setitem(data.DATASETS, "imagenet", SmallImageNet())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    data.fetch("imagenet", str(write_tree(tmp_path / "tree")), "data")
    return tmp_path


def test_prepare_sends_what_it_has_packed_and_what_was_packed_already(
    project: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = project / "data" / "prepared" / "imagenet"
    data.prepare("imagenet", "data")
    assert main(["prepare", "imagenet"]) == 0
    assert there(url, prepared) == content(prepared)
    assert f"{url}: 6 files sent" in capsys.readouterr().out
    assert main(["prepare", "imagenet"]) == 0
    assert f"{url}: all of it is there already, nothing is sent" in capsys.readouterr().out


def test_prepare_without_an_answer_from_the_remote_keeps_what_it_has_packed(
    project: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["data"]["remote"] = url.replace(BUCKET, "nosuch")
    (project / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["prepare", "imagenet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: data.remote = '{tree['data']['remote']}': ")
    open_image_shards(project / "data" / "prepared" / "imagenet", verify=True)
