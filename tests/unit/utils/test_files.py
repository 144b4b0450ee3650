"""Files and folders under their final names are whole."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.utils.errors import UserError
from pipeline.utils.files import check_replaceable, read_json, replace_folder, sha256_file, write_atomic, write_json


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "text", "pixels é\n")
    write_atomic(tmp_path / "a" / "bytes", b"\0\1")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == "pixels é\n".encode()
    assert (tmp_path / "a" / "bytes").read_bytes() == b"\0\1"


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replace_folder(tmp_path / "folder", ("old", "new")) as fresh:
            assert list(fresh.iterdir()) == []
            (fresh / content).write_text(content)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_failed_replacement_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "folder", ["old"]) as fresh:
        (fresh / "half").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys\n"
        "from pipeline.utils.files import replace_folder\n"
        "with replace_folder(sys.argv[1]) as fresh:\n"
        "    (fresh / 'half').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = tmp_path / "folder"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", killed, folder], cwd=root, check=False).returncode < 0
    assert len(list(tmp_path.iterdir())) == 1
    others = [f".folder.elsewhere-{2**22}-0.tmp", f".folder.{socket.gethostname()}-{os.getpid()}-0.tmp"]
    for name in others:  # of another host, and of a process that still runs
        (tmp_path / name).mkdir()
    with replace_folder(folder):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"folder", *others}


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "mine", ["folder/mine", "folder/.mine/x", "folder/own/mine", "folder", "link", "loop", "dangling"]
)
def test_what_is_not_our_own_is_not_replaced(tmp_path: Path, mine: str) -> None:
    disk, path = tmp_path / "disk", tmp_path / mine
    disk.mkdir()
    (disk / "own").write_text("precious")
    path.parent.mkdir(parents=True, exist_ok=True)
    if mine in ("link", "loop", "dangling"):
        path.symlink_to({"link": disk, "loop": path, "dangling": tmp_path / "nowhere"}[mine])
    else:
        path.write_text("precious")
    before = contents(tmp_path)
    target = path if path.is_symlink() else tmp_path / "folder"
    with (
        pytest.raises(UserError, match=r"is not (a folder, so it is not )?replaced") as refused,
        replace_folder(target, ["own"]),
    ):
        pytest.fail("the work was begun in vain")
    assert str(target) in str(refused.value) and "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine"), replace_folder(tmp_path / "folder"):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "mine"]


def test_a_link_above_the_folder_is_refused_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    check_replaceable(tmp_path / "link" / "folder")
    with pytest.raises(UserError, match="link: is a link"):
        check_replaceable(tmp_path / "link" / "folder", parents=1)


def test_files_that_are_links_into_a_cache_are_replaced_and_the_cache_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "own").symlink_to(tmp_path / "cache")
    (tmp_path / "folder" / ".own.host-1-a.tmp").touch()  # of a process that was killed
    with replace_folder(tmp_path / "folder", ["own"]) as fresh:
        (fresh / "own").write_text("new")
    assert (tmp_path / "cache").read_text() == "old" and (tmp_path / "folder" / "own").read_text() == "new"


@pytest.mark.parametrize("name", ["folder", "x" * 300, "file/x"])
def test_a_file_that_cannot_be_written_is_named_by_its_own_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / name.partition("/")[0]))) as refused:
        write_atomic(tmp_path / name, "text")
    assert "tmp'" not in str(refused.value) and len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_could_keep_us_waiting_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.json"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(not a regular file\)"):
        read_json(path)
    with pytest.raises(OSError, match="not a regular file"):
        sha256_file(path)


def test_json_keeps_its_order_and_ends_with_a_line(tmp_path: Path) -> None:
    value = {"b": [1, 2.5], "a": {"é": None}}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert text.startswith('{\n  "b": [\n    1,') and text.endswith("}\n") and "é" in text
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_holds_no_number_that_is_none(tmp_path: Path, number: float) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match=r"a\.json: cannot be written as JSON"):
        write_json(path, {"loss": number})
    assert not path.exists()
    path.write_text(f'{{"loss": {"NaN" if math.isnan(number) else "Infinity"}}}')
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        read_json(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1} x'])
def test_malformed_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "kind"), [("[]", "list"), ("null", "NoneType"), ("3", "int")])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str, kind: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=rf"a\.json: holds a JSON {kind}, needed is an object"):
        read_json(tmp_path / "a.json")


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
