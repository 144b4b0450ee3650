"""The table of counts is used as it was written, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.report.counts import read_counts
from pipeline.runs.reading import CHECKSUMS, write_checksums
from pipeline.utils.errors import UserError
from tests.unit.report.conftest import counts_folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return counts_folder(tmp_path) / "networks.csv"


def test_a_table_with_its_checksum_is_read(table: Path) -> None:
    write_checksums(table.parent, [table.name])
    counts = read_counts(table.parent)
    assert counts["attention92"].multiply_adds_at == {224: 10533789696, 320: 21495398400}
    assert read_counts(table.parent / "nowhere") == read_counts(None) == {}


def test_one_changed_digit_is_noticed(table: Path) -> None:
    write_checksums(table.parent, [table.name])
    table.write_text(table.read_text().replace("64666280", "64666281"))
    with pytest.raises(UserError, match=r"networks\.csv: damaged.*`python -m pipeline counts` writes it again"):
        read_counts(table.parent)


def test_the_committed_table_has_its_checksum() -> None:
    folder = Path(__file__).parents[3] / "reports" / "counts"
    assert (folder / CHECKSUMS).is_file() and "attention92" in read_counts(folder)


@pytest.mark.parametrize("number", ["0", "-1", "9" * 400, "9" * 5000, "nan", "64666280.5", ""])
def test_a_count_that_cannot_be_is_one_line(table: Path, number: str) -> None:
    table.write_text(table.read_text().replace("64666280", number))
    with pytest.raises(UserError, match=r"networks\.csv: not a table of counts \(.*python -m pipeline counts") as error:
        read_counts(table.parent)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("kind", ["folder", "loop"])
def test_what_is_no_file_is_one_line(table: Path, kind: str) -> None:
    table.unlink()
    table.mkdir() if kind == "folder" else table.symlink_to(table)
    with pytest.raises(UserError, match=r"networks\.csv: (Is a directory|Too many levels of symbolic links); `python"):
        read_counts(table.parent)
