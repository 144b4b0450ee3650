"""ImageNet as users have it: trees that are clear give the same shards, others are refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import data
from pipeline.data.shards import open_image_shards
from pipeline.utils.errors import UserError
from tests.unit.data.image_tree import CLASSES, LITTER_FILES, LITTER_FOLDERS, SmallImageNet, write_tree

FIRST = f"{CLASSES[0]}/{CLASSES[0]}_0.JPEG"


@pytest.fixture(autouse=True)
def small_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATASETS, "imagenet", SmallImageNet())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def packed(source: Path, root: Path) -> dict[str, bytes]:
    """Every packed file but the manifest, which names the source."""
    data.fetch("imagenet", str(source), root)
    data.prepare("imagenet", root)
    folder = data.prepared_folder(root, "imagenet")
    open_image_shards(folder, verify=True)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def refused(source: Path, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        data.fetch("imagenet", str(source), root)
    assert str(caught.value).isprintable() and not (root / "raw").exists()
    return str(caught.value)


def make_kaggle(tree: Path, top: Path) -> Path:
    """Kaggle's tree of the same images: `val/` is flat, a file tells the classes."""
    place = top / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.copytree(tree / "train", place / "train")
    (place / "val").mkdir()
    (place / "test").mkdir()
    (top / "ILSVRC" / "Annotations").mkdir()
    lines = ["ImageId,PredictionString"]
    for path in sorted((tree / "val").glob("*/*"), reverse=True):
        shutil.copy(path, place / "val")
        lines.append(f"{path.stem},{path.parent.name} 1 2 3 4 {path.parent.name} 5 6 7 8 ")
    (top / "LOC_val_solution.csv").write_text("\r\n".join(lines))
    return place


@pytest.mark.parametrize("place", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC", ".."])
def test_kaggles_tree_gives_the_same_shards_from_any_of_its_folders(tree: Path, tmp_path: Path, place: str) -> None:
    make_kaggle(tree, tmp_path / "given" / "kaggle")
    assert packed(tmp_path / "given" / "kaggle" / place, tmp_path / "a") == packed(tree, tmp_path / "b")


def test_kaggles_tree_below_the_raw_folder_is_the_official_one(tree: Path, tmp_path: Path) -> None:
    make_kaggle(tree, data.raw_folder(tmp_path / "a", "imagenet"))
    assert data.fetch("imagenet", "official", tmp_path / "a").location == "ILSVRC/Data/CLS-LOC"
    assert data.prepare("imagenet", tmp_path / "a")["checksum"]


@pytest.mark.parametrize("place", ["", "ILSVRC/Data/CLS-LOC"])
def test_excluded_images_of_kaggles_tree_are_not_tested_on(tree: Path, tmp_path: Path, place: str) -> None:
    make_kaggle(tree, tmp_path / "kaggle")
    (tmp_path / "kaggle" / place / "excluded.txt").write_text("3\n")
    data.fetch("imagenet", str(tmp_path / "kaggle"), tmp_path)
    assert data.prepare("imagenet", tmp_path)["excluded"] == 1


def test_two_lists_of_excluded_images_are_refused(tree: Path, tmp_path: Path) -> None:
    place = make_kaggle(tree, tmp_path / "kaggle")
    for folder in (place, tmp_path / "kaggle"):
        (folder / "excluded.txt").write_text("3\n")
    assert "only one list of excluded images may be there" in refused(tmp_path / "kaggle", tmp_path)


def test_a_file_of_kaggles_tree_that_cannot_be_decoded_is_named_where_it_is(tree: Path, tmp_path: Path) -> None:
    place = make_kaggle(tree, tmp_path / "kaggle")
    (place / "val" / "ILSVRC2012_val_00000003.JPEG").write_bytes(b"")
    data.fetch("imagenet", str(place), tmp_path)
    with pytest.raises(UserError, match=r"cannot be decoded: val/ILSVRC2012_val_00000003\.JPEG \(empty\)"):
        data.prepare("imagenet", tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda text: text.replace("ILSVRC2012_val_00000003,", "x,"),
            "does not name: val/ILSVRC2012_val_00000003.JPEG",
        ),
        (
            lambda text: text.replace(f"{CLASSES[0]} ", "n00000009 "),
            f"train/ alone has {CLASSES[0]}; val/ alone has n00",
        ),
        (lambda text: text.replace(f"{CLASSES[0]} ", "../../x "), "'../../x' has a separator"),
        (lambda text: text.replace(f"{CLASSES[0]} 5", f"{CLASSES[1]} 5"), "has 2 classes, needed is one"),
        (lambda text: text.replace("PredictionString", "class"), "not Kaggle's list of ImageId,PredictionString"),
        (lambda text: "", "6 images, expected"),
        (lambda text: None, "has no class folders, and there is no LOC_val_solution.csv in "),
    ],
)
def test_a_solution_that_does_not_fit_is_refused_with_what_is_wrong(
    tree: Path, tmp_path: Path, change: Callable[[str], str | None], problem: str
) -> None:
    make_kaggle(tree, tmp_path / "kaggle")
    path = tmp_path / "kaggle" / "LOC_val_solution.csv"
    changed = change(path.read_text())
    path.unlink()
    if changed is not None:
        path.write_text(changed)
    message = refused(tmp_path / "kaggle", tmp_path)
    assert (problem in message) if changed != "" else ("val/ has 0 images" in message)


def test_left_over_archives_scripts_and_litter_do_not_count(tree: Path, tmp_path: Path) -> None:
    expected = packed(tree, tmp_path / "a")
    for place in ("", "train", "val", f"train/{CLASSES[0]}", f"val/{CLASSES[1]}"):
        for name in LITTER_FILES:
            (tree / place / name).write_bytes(b"x")
        for name in LITTER_FOLDERS:
            (tree / place / name).mkdir()
            (tree / place / name / "x.JPEG").write_bytes(b"x")
    (tree / "val" / "synsets.txt").write_text("x")
    assert packed(tree, tmp_path / "b") == expected


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("TRAIN", "val"),
        ("train", "validation"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("train", "test"),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_folders_of_splits_as_users_name_them_give_the_same_shards(
    tree: Path, tmp_path: Path, train: str, val: str, flat: bool
) -> None:
    expected = packed(tree, tmp_path / "a")
    top = make_kaggle(tree, tmp_path / "kaggle") if flat else tree
    if flat:
        (top / "test").rmdir()
    for split, name in (("train", train), ("val", val)):
        (top / split).rename(top / name)
    if flat and val == "test":
        assert f"{top}/train is there, but no val/ beside it" in refused(tmp_path / "kaggle", tmp_path / "b")
    else:
        assert packed(tmp_path / "kaggle" if flat else tree, tmp_path / "b") == expected


def test_the_usual_folders_win_and_two_others_are_refused(tree: Path, tmp_path: Path) -> None:
    expected = packed(tree, tmp_path / "a")
    for name in ("ILSVRC2012_img_val", "Val", "test"):
        shutil.copytree(tree / "val", tree / name)
    assert packed(tree, tmp_path / "b") == expected
    shutil.rmtree(tree / "val")
    assert "ILSVRC2012_img_val, Val may each be val/, rename the right one so" in refused(tree, tmp_path / "c")


@pytest.mark.parametrize("place", ["ILSVRC", "ILSVRC/Data/CLS-LOC/val"])
@pytest.mark.parametrize("name", ["LOC_val_solution.csv", "loc_val_solution.CSV"])
def test_the_solution_may_lie_elsewhere_in_any_case(tree: Path, tmp_path: Path, place: str, name: str) -> None:
    make_kaggle(tree, tmp_path / "kaggle")
    (tmp_path / "kaggle" / "LOC_val_solution.csv").rename(tmp_path / "kaggle" / place / name)
    assert packed(tmp_path / "kaggle", tmp_path / "a") == packed(tree, tmp_path / "b")


def test_folders_in_a_flat_val_do_not_hide_the_solution(tree: Path, tmp_path: Path) -> None:
    place = make_kaggle(tree, tmp_path / "kaggle")
    (place / "val" / "empty").mkdir()
    assert packed(place, tmp_path / "a") == packed(tree, tmp_path / "b")
    (place / "val" / "more").mkdir()
    (place / "val" / "more" / "x.JPEG").write_bytes(b"")
    message = refused(place, tmp_path / "c")
    assert "folders beside the images: val/more; needed" in message and "outside of class" not in message


@pytest.mark.parametrize("suffix", [".jpeg", ".JPG", ".jpg", ".Jpeg"])
def test_names_of_images_end_in_any_case(tree: Path, tmp_path: Path, suffix: str) -> None:
    expected = packed(tree, tmp_path / "a")
    for path in [*tree.glob("*/*/*")]:
        path.rename(path.with_suffix(suffix))
    assert packed(tree, tmp_path / "b") == expected


def test_a_tree_one_folder_down_is_found_and_two_are_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "sets" / "digits").mkdir(parents=True)
    tree.rename(tmp_path / "sets" / "imagenet")
    packed(tmp_path / "sets", tmp_path / "a")
    shutil.copytree(tmp_path / "sets" / "imagenet", tmp_path / "sets" / "copy")
    message = refused(tmp_path / "sets", tmp_path)
    assert f"in several places: {tmp_path}/sets/copy, {tmp_path}/sets/imagenet; give one" in message


def test_each_tree_that_is_none_is_refused_with_its_own_reason(tree: Path, tmp_path: Path) -> None:
    """Today one sentence would do for none of them."""
    places = {name: tmp_path / name for name in ("missing", "file", "empty", "archives", "other", "half")}
    for name in ("empty", "archives", "other"):
        places[name].mkdir()
    places["file"].write_bytes(b"")
    (places["archives"] / "ILSVRC2012_img_train.tar").write_bytes(b"")
    (places["other"] / "n00000001").mkdir()
    shutil.copytree(tree / "train", places["half"] / "train")
    messages = {name: refused(place, tmp_path / "data") for name, place in places.items()}
    for name, reason in {
        "missing": "there is no such folder",
        "file": "it is a file, which must be extracted first",
        "empty": "it is empty",
        "archives": "only archives that are not extracted: ILSVRC2012_img_train.tar",
        "other": "it holds n00000001",
        "half": f"{tmp_path}/half/train is there, but no val/ beside it",
    }.items():
        assert messages[name].startswith(f"{places[name]}: no imagenet there, {reason}; its publisher"), name
        assert "train/<class>/*.JPEG" in messages[name]


def test_the_culprit_among_the_class_folders_is_named(tree: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(tree / split / CLASSES[0], tree / split / "new folder")
    message = refused(tree, tmp_path)
    assert "train/ has 4 class folders, expected 3; " in message
    assert "class folders whose names are unlike the others: train/new folder;" in message
    assert "class folders whose names are unlike the others: val/new folder;" in message


def test_all_that_is_wrong_with_a_tree_is_listed_in_one_line(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / FIRST).rename(tree / "train" / "lost.JPEG")
    (tree / "train" / "n00000009").mkdir()
    (tree / "val" / CLASSES[1] / "notes.txt").write_text("x")
    (tree / "val" / CLASSES[2] / "more").mkdir()
    shutil.rmtree(tree / "val" / CLASSES[0])
    (tree / "val" / f"{CLASSES[0]}.tar").write_bytes(b"")
    (tree / "train" / f"{FIRST}.part").write_bytes(b"x")
    message = refused(tree, tmp_path)
    for problem in (
        "train/ has 4 class folders, expected 3",
        "train/ has 11 images, expected 12",
        "images outside of class folders: train/lost.JPEG",
        "class folders without images: train/n00000009",
        "val/ has 2 class folders, expected 3",
        f"not images by their names: val/{CLASSES[1]}/notes.txt, val/{CLASSES[2]}/more",
        f"archives that are not extracted: val/{CLASSES[0]}.tar",
        f"unfinished downloads or copies: train/{FIRST}.part",
        f"train/ alone has {CLASSES[0]}, n00000009",
    ):
        assert problem in message


@pytest.mark.parametrize("name", ["two\nlines.JPEG", "<b>.JPEG", "back\\slash.JPEG", b"\xff.JPEG"])
def test_names_that_could_not_stand_on_a_page_or_in_a_list_are_refused(
    tree: Path, tmp_path: Path, name: str | bytes
) -> None:
    path = tree / "train" / FIRST
    path.rename(path.parent / (name.decode(errors="surrogateescape") if isinstance(name, bytes) else name))
    assert "a name has 1 to 255 bytes" in refused(tree, tmp_path)


@pytest.mark.parametrize(
    "line", ["../../outside.JPEG,9,1", "/etc/hostname,9,1", "train/n1,9,1", "train/n1/a.JPEG,x,1", "more/n1/a.JPEG,9,1"]
)
def test_a_listing_with_other_names_is_refused_even_with_its_checksum(tree: Path, tmp_path: Path, line: str) -> None:
    from pipeline.data.source import record_files, save_source

    record = data.fetch("imagenet", str(tree), tmp_path)
    raw = data.raw_folder(tmp_path, "imagenet")
    (raw / "files.csv").write_text(f"name,bytes,used\n{line}\n")
    record.files.update(record_files(raw, ["files.csv"]))
    save_source(record, raw)
    with pytest.raises(UserError, match=r"files\.csv"):
        data.prepare("imagenet", tmp_path)
