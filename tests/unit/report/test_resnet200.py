"""The section "Against ResNet-200": the paper's arithmetic done again, and times only where they were measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.benchmark.table import Speed, extend_table
from pipeline.report.counts import CountsByNetwork, read_counts
from pipeline.report.evidence import Evidence
from pipeline.report.forms import DASH, MINUS
from pipeline.report.resnet200 import Section, Statement, against_resnet200, load_section, section_files
from pipeline.report.speed import pair_times, read_speeds
from pipeline.settings.paper import PaperCell, load_paper
from tests.plans import make_plan

PAPER = load_paper()
SPEED = Speed(
    network="attention92", image_size=224, mode="training", batch_size=2, precision="float32",
    memory_format="contiguous", threads=2, status="measured", median_ms=1500.0, iqr_ms=30.0, images_per_second=1.3333,
    peak_memory_mib=None, warm_up=1, repeats=5, hardware="cpu: a processor, 2 cores", torch="2.11.0",
    commit="0123456789", our_reading="",
)  # fmt: skip


def changed(**values: object) -> Speed:
    return replace(SPEED, **values)  # type: ignore[arg-type]


def section(counts: CountsByNetwork, *speeds: Speed) -> Section:
    return against_resnet200(Evidence(make_plan(), PAPER, {}, {}, (), ()), counts, speeds)


@pytest.fixture(scope="module")
def counts() -> CountsByNetwork:
    return read_counts(Path(__file__).parents[3] / "reports" / "counts")


def in_tables(entry: Statement, cell: PaperCell) -> set[float | None]:
    """What the paper's tables print for a network or an experiment."""
    return {
        known.printed
        for table in PAPER.tables
        for row in table.rows
        for column in table.columns
        for known in [row.cells[column.id]]
        if column.quantity == entry.quantity
        and (known.network, known.experiment) == (cell.network, cell.experiment)
        and (cell.network or (column.dataset or table.dataset) == entry.dataset)
    }


STATEMENTS = [*load_section()["statements"], *load_section()["others"]]


@pytest.mark.parametrize("entry", STATEMENTS, ids=lambda entry: entry.text)
def test_the_numbers_of_a_statement_are_those_of_the_papers_tables(entry: Statement) -> None:
    for cell in (entry.first, entry.second):
        if (cell.network, entry.quantity) == ("preresnet200", "depth"):
            assert cell.printed == 200, "its name alone says so"
        else:
            assert cell.printed in in_tables(entry, cell)


def test_the_sizes_are_those_of_the_papers_tables() -> None:
    rows = {row.id: row for row in PAPER.table("table7").rows}
    columns = {column.quantity: column.id for column in PAPER.table("table7").columns}
    for entry in load_section()["sizes"]:
        if entry["quantity"] in columns and entry["printed"] != (None, None):
            column = columns[entry["quantity"]]
            assert list(entry["printed"]) == [rows[name].cells[column].printed for name in ("attention92", "resnet200")]


@pytest.mark.parametrize(
    ("words", "stated", "arithmetic", "verdict"),
    [
        ("46 % of the trunk depth", "46 %", "92 / 200 = 46.0 %", "as stated"),
        ("69 % of the multiply-adds", "69 %", "10.4 / 15.0 = 69.3 %", "as stated"),
        ("32 % more parameters", "32 %", f"64.7 / 51.3 {MINUS} 1 = 26.1 %", "gives 26 %, not 32 %"),
        ("0.6 points lower than ResNet-200", "0.6 points", f"20.1 {MINUS} 19.5 = 0.60 points", "as stated"),
        ("52 % of the parameters", "52 %", "31.9 / 60.2 = 53.0 %", "gives 53 %, not 52 %"),
        ("56 % of the multiply-adds", "56 %", "6.3 / 11.3 = 55.8 %", "as stated"),
        ("half of the parameters of ResNet-1001", "50 %", "5.1 / 10.3 = 49.5 %", "as stated"),
        ("encoder-decoder", "0.94 points", f"6.48 {MINUS} 5.52 = 0.96 points", "gives 0.96 points, not 0.94 points"),
    ],
)
def test_each_claim_stands_with_its_arithmetic_also_where_that_is_off(
    counts: CountsByNetwork, words: str, stated: str, arithmetic: str, verdict: str
) -> None:
    found = section(counts)
    [row] = [row for row in (*found.checked, *found.others) if words in row.text]
    assert (row.stated, row.arithmetic, row.verdict) == (stated, arithmetic, verdict)


def test_the_counts_of_this_project_stand_beside_the_printed_ones(counts: CountsByNetwork) -> None:
    sizes = {row.label: (row.texts[:3], row.texts[3:]) for row in section(counts).sizes}
    assert sizes["Trunk depth"] == (("92", "200", "46.0 %"), ("92", "200", "46.0 %"))
    assert sizes["Parameters (10⁶)"] == (("51.3", "64.7", "79.3 %"), ("52.47", "64.67", "81.1 %"))
    assert sizes["Multiply-adds (10⁹), 224x224 pixels"] == (("10.4", "15.0", "69.3 %"), ("10.53", "15.01", "70.2 %"))
    assert sizes["Multiply-adds (10⁹), 320x320 pixels"] == ((DASH, DASH, DASH), ("21.50", "30.63", "70.2 %"))
    assert sizes["Top-1 error %, 320x320 pixels"] == (("19.5", "20.1", DASH), ("pending", "pending", DASH))
    [row] = [row for row in section(counts).checked if "32 % more" in row.text]
    assert row.here == f"64.67 / 52.47 {MINUS} 1 = 23.3 %"


def test_without_counts_everything_here_is_pending() -> None:
    empty = section({})
    assert all(row.texts[3:5] == ("pending", "pending") for row in empty.sizes)
    assert {row.here for row in empty.checked} == {"pending", "not measured"}


def test_without_a_measurement_no_time_is_given(counts: CountsByNetwork) -> None:
    times = section(counts).times
    assert [(row.mode, row.image_size) for row in times] == [
        ("evaluation", 224), ("evaluation", 320), ("training", 224), ("training", 320)
    ]  # fmt: skip
    assert {row.texts for row in times} == {("not measured", "not measured")}
    assert all(row.percent is None for row in times)


def test_times_are_for_one_image_and_name_their_hardware(counts: CountsByNetwork) -> None:
    found = section(counts, SPEED, changed(network="preresnet200", median_ms=2000.0))
    [row] = [row for row in found.times if (row.mode, row.image_size) == ("training", 224)]
    assert row.hardware == "cpu: a processor, 2 cores"
    assert row.setting == "2 threads, float32, contiguous, PyTorch 2.11.0"
    assert row.texts == ("750 (IQR 15)", "1000 (IQR 15)")
    assert (row.batch, row.percent) == ("2", 75.0)
    [claim] = [row for row in found.checked if "nearly half" in row.text]
    assert (claim.arithmetic, claim.verdict) == ("the paper prints no times", "cannot be checked")
    assert claim.here.startswith("75 % at 224x224 (cpu: a processor, 2 cores, 2 threads")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (changed(network="preresnet200", status="out of memory", median_ms=None), "out of memory"),
        (changed(network="preresnet200", batch_size=1), "1500 (IQR 30)"),
        (changed(network="preresnet200", threads=1), "not measured"),
        (changed(network="resnet152"), "not measured"),
    ],
)
def test_what_was_not_measured_alike_is_not_compared(other: Speed, text: str) -> None:
    [row, *_] = [row for row in pair_times([SPEED, other]) if row.setting.startswith("2 threads") and row.pair[0]]
    assert row.texts[1] == text
    assert row.percent is None


def test_the_recipe_whose_cost_is_reckoned_is_that_of_the_profile() -> None:
    recipe = load_section()["recipe"]
    conf = Path(__file__).parents[3] / "conf"
    protocol = yaml.safe_load((conf / "protocol" / "imagenet.yaml").read_text())
    assert (recipe.iterations, recipe.batch_size) == (protocol["iterations"], protocol["batch_size"])
    assert recipe.image_size == yaml.safe_load((conf / "crops" / "imagenet.yaml").read_text())["train"]
    experiments = yaml.safe_load((conf / "experiments" / "table7.yaml").read_text())
    assert set(recipe.networks) <= {entry["network"] for entry in experiments.values()}


def test_the_cost_of_the_recipe_stands_side_by_side_for_what_was_measured(counts: CountsByNetwork) -> None:
    hardware = {"hardware": "cuda: a GPU", "threads": 8, "batch_size": 32, "precision": "bfloat16"}
    found = section(
        counts,
        changed(network="attention56", images_per_second=1000.0, joules_per_image=0.5, **hardware),
        changed(network="attention92", images_per_second=500.0, **hardware),
        changed(network="resnet152", status="out of memory", median_ms=None, images_per_second=None, **hardware),
        changed(network="attention56", image_size=320, **hardware),
        changed(network="attention56", mode="evaluation", **hardware),
    )
    assert [(row.network, row.texts) for row in found.costs] == [
        # 530,000 x 256 images = 135,680,000: at 1,000 a second 37.69 h, with 0.5 J each 67.84 MJ = 18.84 kWh
        ("Attention-56", ("32", "1,000", "37.7", "0.5", "18.8")),
        ("Attention-92", ("32", "500", "75.4", "not measured", "not measured")),
        ("ResNet-152", ("32", "out of memory", "out of memory", "not measured", "not measured")),
        ("ResNet-200", (DASH, "not measured", "not measured", "not measured", "not measured")),
    ]
    assert {row.hardware for row in found.costs} == {"cuda: a GPU"}
    [line] = [line for line in section_files(found)["tables/resnet200-cost.csv"].splitlines() if "Attention-56" in line]
    assert line.endswith(",Attention-56,measured,32,1000.0,37.688889,0.5,18.844444")


def test_without_a_measurement_the_recipe_has_no_cost(counts: CountsByNetwork) -> None:
    costs = section(counts, changed(network="resnext101_32x4d"), changed(mode="evaluation")).costs
    assert [row.network for row in costs] == ["Attention-56", "Attention-92", "ResNet-152", "ResNet-200"]
    assert {row.texts for row in costs} == {(DASH, *["not measured"] * 4)}


def test_tables_are_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    extend_table(tmp_path / "a.csv", [SPEED])
    (tmp_path / "b.csv").write_text("x\n")
    speeds, [problem] = read_speeds(tmp_path)
    assert speeds == [SPEED]
    assert problem.path == f"{tmp_path.name}/b.csv"
    assert problem.reason.startswith("not a table of measured speed")
    assert read_speeds(None) == ([], [])


def test_the_section_is_there_as_csv_too(counts: CountsByNetwork) -> None:
    files = section_files(section(counts, SPEED))
    assert set(files) == {f"tables/resnet200-{name}.csv" for name in ("sizes", "times", "cost", "claims")}
    assert ",training,224,2,measured,750.0,15.0,not measured,,,\n" in files["tables/resnet200-times.csv"]
    assert '320x320 pixels",,,,21.495398,30.625382,70.18818\n' in files["tables/resnet200-sizes.csv"]
