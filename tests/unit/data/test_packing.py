"""Images of any size: counted, checked, packed into shards, and read back as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import data
from pipeline.data import packing
from pipeline.data.shards import open_image_shards
from pipeline.utils.errors import UserError
from tests.unit.data.image_tree import CLASSES, SmallImageNet, encode, write_tree

FIRST = f"train/{CLASSES[0]}/{CLASSES[0]}_0.JPEG"
SECOND = f"train/{CLASSES[1]}/{CLASSES[1]}_1.JPEG"


@pytest.fixture(autouse=True)
def small_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATASETS, "imagenet", SmallImageNet())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


@pytest.fixture
def prepared(tree: Path, tmp_path: Path) -> Path:
    data.fetch("imagenet", str(tree), tmp_path)
    data.prepare("imagenet", tmp_path)
    return data.prepared_folder(tmp_path, "imagenet")


def test_every_image_is_packed_as_it_was_with_its_label_and_size(tree: Path, prepared: Path) -> None:
    images = open_image_shards(prepared, verify=True)
    assert images.classes == CLASSES
    for shards, split in ((images.train, "train"), (images.test, "val")):
        files = sorted((tree / split).rglob("*.JPEG"))
        assert [shards.encoded(k) for k in range(len(shards))] == [path.read_bytes() for path in files]
        assert [CLASSES[label] for label in shards.labels] == [path.parent.name for path in files]
    assert images.train.size(1) == (47, 60)


def test_the_manifest_has_size_and_checksum_of_every_file(prepared: Path) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["sizes"] == {name: (prepared / name).stat().st_size for name in manifest["files"]}
    assert set(manifest["files"]) == {path.name for path in prepared.iterdir()} - {"manifest.json"}
    assert (manifest["train_images"], manifest["test_images"], manifest["excluded"]) == (12, 6, 0)


def test_the_shards_are_cut_by_size_and_hold_the_same_images(tree: Path, prepared: Path, tmp_path: Path) -> None:
    whole = open_image_shards(prepared).train
    packing.prepare_images("imagenet", data.raw_folder(tmp_path, "imagenet"), tmp_path / "cut", shard_bytes=4000)
    cut = open_image_shards(tmp_path / "cut", verify=True).train
    assert len(list((tmp_path / "cut").glob("train-*.bin"))) > 2
    assert [cut.encoded(k) for k in range(12)] == [whole.encoded(k) for k in range(12)]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda whole: b"", "empty"),
        (lambda whole: whole[: len(whole) // 2], "Truncated"),  # in its header
        (lambda whole: whole[:-100], "truncated"),
        (lambda whole: b"<html>", "neither JPEG nor PNG"),
    ],
)
def test_files_that_give_no_pixels_are_all_named(
    tree: Path, tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    for name in (FIRST, SECOND):
        (tree / name).write_bytes(damage((tree / name).read_bytes()))
    data.fetch("imagenet", str(tree), tmp_path)
    with pytest.raises(
        UserError, match=rf"2 of 18 images cannot be decoded: {FIRST} \(.*{reason}.*\), {SECOND} \("
    ) as e:
        data.prepare("imagenet", tmp_path)
    assert "\n" not in str(e.value)
    assert (data.raw_folder(tmp_path, "imagenet") / "unreadable.csv").read_text().count("\n") == 3
    assert not data.prepared_folder(tmp_path, "imagenet").exists()


def test_unusual_files_are_named_and_kept(tree: Path, tmp_path: Path) -> None:
    names = [f"train/{CLASSES[0]}/{CLASSES[0]}_{k}.JPEG" for k in range(3)]
    (tree / names[0]).write_bytes(encode(1, 40, 60, "CMYK"))
    (tree / names[1]).write_bytes(encode(2, 47, 60, "L"))
    (tree / names[2]).write_bytes(encode(3, 54, 60, "RGB", "PNG"))
    data.fetch("imagenet", str(tree), tmp_path)
    manifest = data.prepare("imagenet", tmp_path)
    assert manifest["unusual"] == {"CMYK": 1, "PNG named JPEG": 1, "greyscale": 1}
    lines = (data.prepared_folder(tmp_path, "imagenet") / "unusual.csv").read_text().splitlines()
    assert lines == ["name,kind", f"{names[0]},CMYK", f"{names[1]},greyscale", f"{names[2]},PNG named JPEG"]


def test_an_interrupted_packing_continues_with_the_next_shard(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.fetch("imagenet", str(tree), tmp_path)
    raw, prepared = data.raw_folder(tmp_path, "imagenet"), data.prepared_folder(tmp_path, "imagenet")
    begun: list[str] = []
    pack = packing.pack

    def counting(shard: packing.Shard, *rest: object) -> list[tuple[str, str]]:
        if len(begun) == 2:
            raise KeyboardInterrupt
        begun.append(shard.name)
        return pack(shard, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(packing, "pack", counting)
        with pytest.raises(KeyboardInterrupt):
            packing.prepare_images("imagenet", raw, prepared, shard_bytes=4000)
    assert not prepared.exists()
    again: list[str] = []
    monkeypatch.setattr(packing, "pack", lambda shard, *rest: again.append(shard.name) or pack(shard, *rest))
    packing.prepare_images("imagenet", raw, prepared, shard_bytes=4000)
    assert begun == ["train-00000", "train-00001"] and "train-00002" in again and not set(begun) & set(again)
    assert [path.name for path in prepared.parent.iterdir()] == ["imagenet"]
    open_image_shards(prepared, verify=True)


def packed_apart(shards: Sequence[packing.Shard], advance: packing.Advance) -> list[packing.Broken]:
    """Each shard by itself, the last one first, as the tasks of a cluster may do it."""
    found = {}
    for shard in reversed(shards):
        with ThreadPoolExecutor(1) as pool:
            found[shard.name] = packing.pack_unless_packed(shard, pool, lambda _: None)
        advance(len(shard.files))
    return [broken for shard in shards for broken in found[shard.name]]


def test_shards_packed_in_any_order_and_after_an_interruption_make_the_same_folder(tree: Path, tmp_path: Path) -> None:
    data.fetch("imagenet", str(tree), tmp_path)
    raw, here, there = data.raw_folder(tmp_path, "imagenet"), tmp_path / "here", tmp_path / "there"
    packing.prepare_images("imagenet", raw, here, shard_bytes=4000)
    kept: list[Path] = []
    seen: list[int] = []

    def interrupted(shards: Sequence[packing.Shard], advance: packing.Advance) -> list[packing.Broken]:
        packed_apart(shards[2:], advance)
        kept.extend(shard.parts[0] for shard in shards[2:])
        kept[0].with_name(f".{shards[0].parts[0].name}.0123.tmp").write_bytes(b"half of a shard")
        raise KeyboardInterrupt

    def watched(shards: Sequence[packing.Shard], advance: packing.Advance) -> list[packing.Broken]:
        assert not list(kept[0].parent.glob(".*.tmp")), "what is unfinished would stay for ever"
        return packed_apart(shards, seen.append)

    with pytest.raises(KeyboardInterrupt):
        packing.prepare_images("imagenet", raw, there, shard_bytes=4000, pack_shards=interrupted)
    made = {path.name: path.stat().st_ino for path in kept}
    packing.prepare_images("imagenet", raw, there, shard_bytes=4000, pack_shards=watched)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {
        path.name: path.read_bytes() for path in here.iterdir()
    }
    assert len(made) > 2 and {name: (there / name).stat().st_ino for name in made} == made
    assert sum(seen) == 18


def test_broken_files_are_named_in_one_order_wherever_they_are_found(tree: Path, tmp_path: Path) -> None:
    for name in (FIRST, SECOND):
        (tree / name).write_bytes(b"")
    data.fetch("imagenet", str(tree), tmp_path)
    raw, told = data.raw_folder(tmp_path, "imagenet"), []
    for pack_shards in (packing.pack_here, packed_apart):
        with pytest.raises(UserError, match="2 of 18 images cannot be decoded") as caught:
            packing.prepare_images("imagenet", raw, tmp_path / "p", shard_bytes=4000, pack_shards=pack_shards)
        told.append((str(caught.value), (raw / "unreadable.csv").read_bytes()))
    assert told[0] == told[1]


def test_packed_images_are_left_alone_and_damaged_ones_packed_again(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = prepared / "train-00000.bin"
    whole, made = shard.read_bytes(), shard.stat().st_ino
    data.prepare("imagenet", tmp_path)
    assert shard.stat().st_ino == made
    shard.write_bytes(whole[:-4] + b"1234")
    data.prepare("imagenet", tmp_path)
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("name", ["train-00000.bin", "train.npy", "val.npy", "manifest.json"])
def test_what_is_missing_or_cut_off_is_named(prepared: Path, name: str) -> None:
    path = prepared / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        open_image_shards(prepared)


def test_a_wrong_count_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / FIRST).unlink()
    with pytest.raises(UserError, match=r"train/ has 11 images, expected 12"):
        data.fetch("imagenet", str(tree), tmp_path)


def test_a_class_in_one_split_only_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "val" / CLASSES[0]).rename(tree / "val" / "n00000009")
    with pytest.raises(UserError, match=r"train/ alone has n00000001; val/ alone has n00000009;"):
        data.fetch("imagenet", str(tree), tmp_path)


def test_a_missing_tree_is_refused_with_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train/<class>/\*\.JPEG"):
        data.fetch("imagenet", "official", tmp_path)


@pytest.mark.parametrize("entry", ["3", "ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000003  # a drawing"])
def test_excluded_validation_images_are_not_tested_on(tree: Path, tmp_path: Path, entry: str) -> None:
    (tree / "excluded.txt").write_text(f"# the list of the development kit\n\n{entry}\n")
    data.fetch("imagenet", str(tree), tmp_path)
    manifest = data.prepare("imagenet", tmp_path)
    assert (manifest["test_images"], manifest["excluded"]) == (5, 1)
    kept = open_image_shards(data.prepared_folder(tmp_path, "imagenet")).test
    left_out = (tree / "val" / CLASSES[1] / "ILSVRC2012_val_00000003.JPEG").read_bytes()
    assert left_out not in [kept.encoded(k) for k in range(5)]


def test_excluded_images_that_do_not_exist_are_all_named(tree: Path, tmp_path: Path) -> None:
    (tree / "excluded.txt").write_text("50001\n3\nx\n")
    with pytest.raises(UserError, match=r"excluded\.txt: not validation images: '50001', 'x'"):
        data.fetch("imagenet", str(tree), tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe3\x00", "not in UTF-8"),
        (b"\n".join(b"%d" % number for number in range(1, 7)), "names all 6 validation images; at least one must"),
    ],
)
def test_a_list_of_excluded_images_that_cannot_be_meant_is_refused(
    tree: Path, tmp_path: Path, content: bytes, problem: str
) -> None:
    (tree / "excluded.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"excluded\.txt: {problem}"):
        data.fetch("imagenet", str(tree), tmp_path)


def test_a_byte_order_mark_before_the_excluded_images_is_no_part_of_a_name(tree: Path, tmp_path: Path) -> None:
    (tree / "excluded.txt").write_text("3\n", encoding="utf-8-sig")
    data.fetch("imagenet", str(tree), tmp_path)
    assert data.prepare("imagenet", tmp_path)["excluded"] == 1


def test_an_image_that_changed_since_it_was_fetched_is_named(tree: Path, tmp_path: Path) -> None:
    data.fetch("imagenet", str(tree), tmp_path)
    image = next((tree / "val" / CLASSES[1]).iterdir())
    image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(UserError, match=rf"{image.name} \(\d+ bytes, it had \d+ when it was fetched"):
        data.prepare("imagenet", tmp_path)


def test_label_noise_on_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="label noise is for data sets of arrays"):
        data.corrupt("imagenet", 10, tmp_path)
