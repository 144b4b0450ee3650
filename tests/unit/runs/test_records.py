"""The files of runs: what is read and written again has equal bytes, and a mistake is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.runs.arrays import read_mistakes, write_mistakes
from pipeline.runs.finished import read_spec
from pipeline.runs.records import (
    CONFIG,
    HISTORY,
    METRICS,
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
        ({"test_error": 101.0}, "test_error = 101.0: must be a percentage"),
        ({"best_test_error": 100.0}, "best_test_error = 100.0: must be at most test_error"),
        ({"parameters": 0}, "parameters = 0: must be at least 1"),
        ({"parameters": 1.5}, "parameters = 1.5"),
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
