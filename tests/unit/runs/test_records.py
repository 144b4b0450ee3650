"""The files of runs: what is read and written again has equal bytes, and a mistake is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.runs.arrays import Masks, read_mistakes, write_arrays, write_mistakes
from pipeline.runs.finished import read_spec
from pipeline.runs.records import (
    CONFIG,
    HISTORY,
    MASKS,
    METRICS,
    MISTAKES,
    PROVENANCE,
    RESPONSES,
    TIMING,
    Evaluation,
    Metrics,
    Provenance,
    Responses,
    Timing,
    read_rows,
    write_rows,
)
from pipeline.utils.errors import UserError
from pipeline.utils.files import write_json

ROOT = Path(__file__).parents[3]
PUBLISHED = sorted(path.parent for path in ROOT.glob(f"published/*/*/{CONFIG}"))
HUGE = 10**400
BARE = """
import sys
for name in ("pydantic", "pandas", "ray", "mlflow", "dvc"):
    sys.modules[name] = None
from pathlib import Path
from pipeline.runs.finished import read_finished
print(read_finished(Path(sys.argv[1])).metrics.test_error)
"""


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_every_published_file_is_read_and_written_again_to_equal_bytes(folder: Path, tmp_path: Path) -> None:
    write_json(tmp_path / CONFIG, read_spec(folder).to_json())
    Metrics.read(folder).write(tmp_path)
    Responses.read(folder).write(tmp_path)
    provenance = Provenance.read(folder)
    assert provenance is not None
    provenance.write(tmp_path)
    write_rows(tmp_path / HISTORY, Evaluation, read_rows(folder / HISTORY, Evaluation))
    write_rows(tmp_path / TIMING, Timing, read_rows(folder / TIMING, Timing))
    for name in (CONFIG, METRICS, RESPONSES, PROVENANCE, HISTORY, TIMING):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_run_is_read_where_neither_pydantic_nor_pandas_is_installed() -> None:
    command = [sys.executable, "-c", BARE, str(PUBLISHED[0])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(Metrics.read(PUBLISHED[0]).test_error), done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_error": "5.5"}, "test_error = '5.5'"),
        ({"test_error": True}, "test_error = True"),
        ({"test_error": 101.0}, "test_error = 101.0: input should be less than or equal to 100"),
        ({"best_test_error": 100.0}, "best_test_error = 100.0: must be at most test_error"),
        ({"parameters": 0}, "parameters = 0: input should be greater than 0"),
        ({"parameters": 1.5}, "parameters = 1.5"),
        ({"parameters": HUGE}, "parameters = 1000"),
        ({"multiply_adds": HUGE}, "multiply_adds = 1000"),
        ({"test_loss": -1.0}, "test_loss = -1.0"),
    ],
)
def test_metrics_that_cannot_be_are_one_line_with_key_and_value(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    content = json.loads((PUBLISHED[0] / METRICS).read_text())
    (tmp_path / METRICS).write_text(json.dumps(content | changes))
    with pytest.raises(UserError) as refused:
        Metrics.read(tmp_path)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [[-1.0], [HUGE], [[1.0]], ["1"]])
def test_responses_that_cannot_be_are_refused(tmp_path: Path, value: list[object]) -> None:
    (tmp_path / RESPONSES).write_text(json.dumps({"stages": value, "relative": [1.0]}))
    with pytest.raises(UserError, match=r"responses\.json: stages\.0"):
        Responses.read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seconds", 1e15),
        ("seconds", -1.0),
        ("started", "9999-12-31T23:59:59"),
        ("started", "tomorrow"),
        ("workers", 0),
        ("threads", -1),
        ("threads", 0),
        ("threads", HUGE),
        ("from_iteration", -5),
        ("from_iteration", HUGE),
        ("from_iteration", 10**6),  # beyond the end
        ("images_per_second", HUGE),
    ],
)
def test_a_segment_that_cannot_be_is_refused(tmp_path: Path, key: str, value: object) -> None:
    content = json.loads((PUBLISHED[0] / PROVENANCE).read_text())
    content["segments"][0][key] = value
    (tmp_path / PROVENANCE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"provenance\.json: segments\.0.*{key}") as refused:
        Provenance.read(tmp_path)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_segments_of_more_than_a_hundred_years_are_refused(tmp_path: Path) -> None:
    content = json.loads((PUBLISHED[0] / PROVENANCE).read_text())
    content["segments"] = [content["segments"][0] | {"seconds": 3e9}] * 2
    (tmp_path / PROVENANCE).write_text(json.dumps(content))
    with pytest.raises(UserError, match="more than a hundred years"):
        Provenance.read(tmp_path)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("test_error", "nan"),
        ("test_error", "100.1"),
        ("train_loss", "inf"),
        ("train_loss", "-1e308"),
        ("iteration", "9" * 4000),
        ("iteration", "9" * 5000),
        ("iteration", "1_0"),
        ("iteration", "-1"),
        ("iteration", "1.5"),
        ("epoch", "1e999"),
        ("epoch", " 1"),
        ("epoch", "\u0661"),
        ("learning_rate", "inf"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(tmp_path: Path, column: str, cell: str) -> None:
    row = dict.fromkeys(("epoch", "iteration", "learning_rate", "train_loss", "train_error", "test_loss"), "1")
    row |= {"test_error": "1", column: cell}
    (tmp_path / HISTORY).write_text(f"{','.join(row)}\n{','.join(row.values())}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"history\.csv: malformed") as refused:
        read_rows(tmp_path / HISTORY, Evaluation)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "images", [np.inf, 360.7, "360", [360], -1, 10**9, np.datetime64("2026-01-01"), True], ids=repr
)
def test_a_number_of_mistakes_that_is_no_count_is_refused(tmp_path: Path, images: Any) -> None:
    write_arrays(tmp_path / MISTAKES, {"wrong": np.zeros(45, np.uint8), "images": np.asarray(images)})
    with pytest.raises(UserError, match=r"mistakes\.npz: not a list of mistakes"):
        read_mistakes(tmp_path)


def test_mistakes_of_two_dimensions_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path / MISTAKES, {"wrong": np.zeros((45, 2), np.uint8), "images": np.asarray(360)})
    with pytest.raises(UserError, match=r"mistakes\.npz: not a list of mistakes"):
        read_mistakes(tmp_path)


@pytest.mark.parametrize("dtype", ["U5", "V4", [("a", "f4")], "i8", "c8", "M8[s]", "?"], ids=repr)
def test_masks_that_are_no_floating_point_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    images = np.zeros((8, 4, 4, 3), np.uint8)
    write_arrays(tmp_path / MASKS, {"images": images, "s1m1_mask": np.zeros((8, 2, 2), dtype)})
    with pytest.raises(UserError, match=r"masks\.npz: its masks are not floating-point numbers"):
        Masks.read(tmp_path)


@pytest.mark.parametrize("cut", ["0.8,625,0.1", "", "epoch,iteration\n1,2\n", "\xff"])
def test_a_table_that_was_cut_is_refused(tmp_path: Path, cut: str) -> None:
    header = (PUBLISHED[0] / HISTORY).read_text().splitlines()[0]
    (tmp_path / HISTORY).write_text(f"{header}\n{cut}" if cut.startswith("0") else cut, encoding="latin-1")
    with pytest.raises(UserError, match=r"history\.csv: malformed"):
        read_rows(tmp_path / HISTORY, Evaluation)


@pytest.mark.parametrize("images", [1, 8, 9, 360])
def test_mistakes_are_kept_to_the_image(tmp_path: Path, images: int) -> None:
    wrong = np.random.default_rng(0).random(images) < 0.3
    write_mistakes(tmp_path, wrong)
    read = read_mistakes(tmp_path)
    assert read is not None and read.dtype == bool and (read == wrong).all()
    first = (tmp_path / "mistakes.npz").read_bytes()
    write_mistakes(tmp_path, wrong)
    assert (tmp_path / "mistakes.npz").read_bytes() == first


def test_a_run_that_is_going_on_again_has_no_checksums(tmp_path: Path) -> None:
    shutil.copytree(PUBLISHED[0], tmp_path / "run")
    provenance = Provenance.read(tmp_path / "run")
    assert provenance is not None
    provenance.ended("failed").write(tmp_path / "run")
    assert Provenance.read(tmp_path / "run") == provenance.ended("failed")
