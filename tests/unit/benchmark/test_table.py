"""Tables of measured speed: extended row by row, read back, refused when damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.benchmark.table import Speed, extend_table, read_table
from pipeline.utils.errors import UserError

ROW = Speed(
    network="cifar_attention92", image_size=32, mode="training", batch_size=16, precision="float32",
    memory_format="contiguous", threads=2, status="measured", median_ms=812.5, iqr_ms=3.25, images_per_second=19.6923,
    peak_memory_mib=None, warm_up=1, repeats=5, hardware="cpu: a processor, 2 cores", torch="2.11.0",
    commit="0123456789", our_reading="stem, widths",
)  # fmt: skip


def changed(**values: object) -> Speed:
    return replace(ROW, **values)  # type: ignore[arg-type]


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    unmeasured = changed(
        mode="evaluation", status="out of memory", median_ms=None, iqr_ms=None, images_per_second=None, repeats=0
    )
    extend_table(tmp_path / "new" / "t.csv", [ROW, unmeasured])
    assert read_table(tmp_path / "new" / "t.csv") == [unmeasured, ROW]


def test_a_table_from_before_energy_was_measured_is_read_and_extended(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    extend_table(path, [ROW])
    old = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    assert old[0].endswith(",our_reading")
    path.write_text("\n".join(old) + "\n")
    assert read_table(path) == [ROW]
    measured = changed(image_size=64, joules_per_image=0.0625)
    extend_table(path, [measured])
    assert read_table(path) == [ROW, measured]


def test_a_partial_run_extends_the_table_and_replaces_only_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    others = [
        changed(network="cifar_attention128"),
        changed(image_size=64),
        changed(mode="evaluation"),
        changed(precision="bfloat16"),
        changed(memory_format="channels_last"),
        changed(threads=1),
    ]
    extend_table(path, [ROW, *others])
    newer = changed(median_ms=1.0, batch_size=2, commit="f", torch="2.12.0")
    extend_table(path, [newer])
    rows = read_table(path)
    assert newer in rows
    assert ROW not in rows
    assert all(row in rows for row in others)
    assert len(rows) == 7


def test_rows_are_sorted_whatever_the_order_of_measurement(tmp_path: Path) -> None:
    rows = [
        changed(network="attention56"),
        changed(network="cifar_attention92", mode="evaluation"),
        changed(network="cifar_attention92"),
        changed(network="cifar_attention128"),
    ]
    for name, order in (("a.csv", rows), ("b.csv", rows[::-1])):
        for row in order:
            extend_table(tmp_path / name, [row])
    assert read_table(tmp_path / "a.csv") == rows
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("median_ms", "speed"),
        lambda text: text.replace("812.5", "fast"),
        lambda text: text.replace("812.5", ""),
        lambda text: text.replace("measured", "out of time"),
        lambda text: text.replace("812.5", "nan"),
        lambda text: text.replace("812.5", "inf"),
        lambda text: text.replace("812.5", "-812.5"),
        lambda text: text.replace("812.5", "1e-320"),
        lambda text: text.replace("3.25", "-3.25"),
        lambda text: text.replace("19.6923", "0"),
        lambda text: text.replace(",16,float32", ",0,float32"),
        lambda text: text.replace(",16,float32", f",{'9' * 400},float32"),
        lambda text: text[: text.rindex(",0123")],
        lambda text: "",
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "t.csv"
    extend_table(path, [ROW])
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match="not a table of measured speed") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "loop"])
def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.csv"
    path.mkdir() if kind == "folder" else path.symlink_to(path)
    with pytest.raises(UserError, match=r"t\.csv: cannot be read"):
        read_table(path)


def test_the_committed_tables_can_be_read() -> None:
    tables = sorted((Path(__file__).parents[3] / "benchmarks" / "networks").glob("*.csv"))
    assert tables and all(read_table(path) for path in tables)


def test_milliseconds_for_one_image_are_those_of_the_step_shared_out() -> None:
    assert ROW.ms_per_image == pytest.approx(812.5 / 16)
    assert changed(median_ms=None, status="out of time").ms_per_image is None


def test_a_row_reads_as_a_sentence() -> None:
    assert str(ROW) == "cifar_attention92 32 training: 812.5 ms for 16 images, interquartile range 3.2 ms"
    assert str(changed(median_ms=None, status="out of time")) == "cifar_attention92 32 training: out of time"
