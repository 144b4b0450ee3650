"""The tables of a synthetic world, letter by letter. `UPDATE_GOLDEN=1` writes them anew, to be read in the diff."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "report"


@pytest.mark.parametrize(
    "name", ["tables/table3.csv", "tables/table3.tex", "tables/table6.csv", "tables/figure4.csv", "report.md"]
)
def test_the_tables_are_those_of_the_golden_files(built: Any, name: str) -> None:
    golden = GOLDEN / Path(name).name
    text = (built.folder / name).read_text()
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
