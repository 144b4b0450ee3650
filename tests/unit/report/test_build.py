"""The report as a whole: what it writes, that it is honest, and that it never crashes on what lies around."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from pipeline.report.build import ReportSummary, build_index, build_report
from pipeline.runs.spec import NUMERICS
from pipeline.settings.plan import Plan
from pipeline.tracking.describe import cells
from pipeline.utils.errors import UserError


def build(world: Any, plan: Plan) -> ReportSummary:
    profile = plan.profile
    return build_report(
        plan, world.sources, world.root / "reports" / profile, world.root / "reports/local" / profile, None
    )


def rows(world: Any, name: str) -> list[dict[str, str]]:
    with (world.folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_has_all_its_forms(built: Any) -> None:
    for name in ("report.md", "report.html", "summary.json", "metrics.json", "claims.csv", "runs.csv"):
        assert (built.folder / name).is_file(), name
    tables = {path.name for path in (built.folder / "tables").iterdir()}
    stems = (*(f"table{i}" for i in range(1, 8)), "figure4")
    against = {f"resnet200-{name}.csv" for name in ("sizes", "times", "cost", "claims")}
    assert tables == {f"{stem}.{kind}" for stem in stems for kind in ("csv", "tex")} | against
    figures = {path.name for path in (built.folder / "figures").iterdir()}
    assert figures == {
        "learning-curves.svg", "error-by-noise.svg", "arl-nal-by-depth.svg", "error-by-cost.svg",
        "error-by-cost-imagenet.svg", "response-by-stage.svg", "attention-masks.png", "label-confusion.svg",
        "progress.svg",
    }  # fmt: skip


def test_the_summary_says_in_words_what_was_found(built: Any) -> None:
    text = str(built.summary)
    assert "digits: 56 of 60 runs" in text
    assert "not used: runs/attention128-nal-s1" in text and "paused at iteration 90" in text


def test_every_cell_has_its_printed_number_spread_interval_and_seeds(built: Any) -> None:
    [cell] = [row for row in rows(built, "tables/table3.csv") if (row["row"], row["column"]) == ("attention92", "nal")]
    assert float(cell["printed"]) == 5.35
    assert (cell["seeds"], cell["planned_seeds"]) == ("3", "3")
    assert (cell["dataset"], cell["profile"], cell["iterations"]) == ("digits", "digits", "180")
    assert float(cell["interval_low"]) < float(cell["measured"]) < float(cell["interval_high"])
    assert float(cell["standard_deviation"]) > 0
    assert cell["difference"] == "", "digits cannot be set against numbers on CIFAR-10"


def test_the_metrics_are_about_ten_headline_numbers_that_fit_a_line_of_120_columns(built: Any) -> None:
    summary, metrics = (json.loads((built.folder / f"{name}.json").read_text()) for name in ("summary", "metrics"))
    assert metrics["runs"] == summary["runs"]["done"] + summary["runs"]["published_seeds"]
    cells = {name: cell["measured"] for table in summary["tables"].values() for name, cell in table.items()}
    assert metrics["ARL92"] == round(cells["table3/attention92/arl"], 2)
    decided = [c["holds"] for c in summary["claims"].values() if "count" not in c["verdict"]]
    assert (metrics["hold"], metrics["fail"]) == (decided.count(True), decided.count(False))
    assert len(metrics) <= 12
    path = "reports/digits/metrics.json"
    assert len(path) + sum(4 + max(len(name), len(str(value))) for name, value in metrics.items()) <= 120


def test_noise_has_slopes_with_their_interval_and_the_papers_own(built: Any) -> None:
    cells = {row["column"]: row for row in rows(built, "tables/table5.csv") if row["row"] == "slope"}
    assert {column: float(cell["printed"]) for column, cell in cells.items()} == {
        "resnet164": 1.779,
        "attention92": 1.664,
    }
    for cell in cells.values():
        assert (cell["quantity"], cell["seeds"], cell["planned_seeds"]) == ("slope", "3", "3")
        assert float(cell["interval_low"]) < float(cell["measured"]) < float(cell["interval_high"])
    assert "slope (points for 10 % of noise)" in (built.folder / "report.md").read_text()


def test_every_row_of_a_latex_table_fills_its_columns(world: Any) -> None:
    plan = world.plan("cifar10", seeds=2, dataset="cifar10", full=True)
    world.train(plan)
    build(world, plan)
    for path in sorted((world.root / "reports/cifar10/tables").glob("*.tex")):
        text = path.read_text()
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])  # type: ignore[index]
        assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule")), path.name
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
        for line in body:
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
            assert line.endswith(r"\\")
        above = text.split(r"\toprule")[1].strip().splitlines()[0]
        assert 1 + sum(int(n) for n in re.findall(r"multicolumn\{(\d+)\}", above)) == columns
        assert "& difference &" in text


def test_figures_that_cannot_be_drawn_yet_are_named(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    build(world, plan)
    for name in ("report.md", "report.html"):
        text = (world.root / "reports/digits" / name).read_text()
        assert "Pending figures:" in text and "attention masks (a run of an attention network)" in text


def test_holes_stay_visible(built: Any) -> None:
    text = (built.folder / "report.md").read_text()
    assert re.search(r"\| local convolutions \| 6\.48 \| pending \| 0 of 3 seeds \|", text)
    assert "2 of 3 seeds" in text
    assert "attention56-local-s0" in text.split("Pending:")[1]


def test_a_number_by_older_code_is_marked_in_every_form(built: Any) -> None:
    assert "†" in next(line for line in (built.folder / "report.md").read_text().splitlines() if "7.18" in line)
    [cell] = [row for row in rows(built, "tables/table3.csv") if (row["row"], row["column"]) == ("attention164", "nal")]
    assert cell["marks"] == "older training code"
    assert r"\dag" in (built.folder / "tables/table3.tex").read_text()
    assert '<abbr title="older training code">' in (built.folder / "report.html").read_text()


def test_the_page_opens_with_the_plans_statement(built: Any) -> None:
    statement = built.built_plan.label.statement
    assert statement in (built.folder / "report.md").read_text().split("##")[0]
    assert statement in (built.folder / "report.html").read_text().split("<h2")[0]
    assert statement in (built.folder / "tables/table1.tex").read_text()
    assert json.loads((built.folder / "summary.json").read_text())["reproduction"] is False


def test_a_stand_in_never_reads_as_a_reproduction(built: Any) -> None:
    claims = json.loads((built.folder / "summary.json").read_text())["claims"]
    assert not [claim for claim in claims.values() if "reproduced" in claim["verdict"]]
    assert any(claim["verdict"] == "holds on stand-in data (digits)" for claim in claims.values())


def test_tracked_files_know_nothing_of_machine_and_day(built: Any) -> None:
    for path in (*built.folder.rglob("*.md"), *built.folder.rglob("*.html"), *built.folder.rglob("*.json")):
        text = path.read_text()
        for word in ("synthetic-host", "Synthetic CPU", "f" * 40, "2026-01-01", "a" * 32, str(built.root)):
            assert word not in text, (path.name, word)
    for path in (built.folder / "figures").glob("*.svg"):
        assert "<dc:date>" not in path.read_text()


def test_the_local_page_knows_machine_day_and_mlflow(built: Any) -> None:
    text = (built.local / "report.html").read_text()
    for word in ("Synthetic CPU", "f" * 10, "12.5", f"/#/runs/{'a' * 32}", "2026-01-01"):
        assert word in text, word


def test_the_html_is_one_file_below_five_megabytes(built: Any) -> None:
    text = (built.folder / "report.html").read_text()
    assert len(text.encode()) < 5_000_000
    for source in re.findall(r'(?:src|href)="([^"#]+)"', text):
        kind = urlparse(source).scheme
        if kind in ("", "file"):
            assert (built.folder / source).is_file(), source
        else:
            assert source.startswith(("data:", "https://arxiv.org/abs/")), source
    assert '<link rel="stylesheet"' not in text and "@import" not in text


def test_every_id_of_the_html_is_unique(built: Any) -> None:
    ids = re.findall(r'\bid="([^"]+)"', (built.folder / "report.html").read_text())
    assert len(ids) == len(set(ids))


def test_every_cell_has_an_id_that_the_descriptions_in_mlflow_link_to(built: Any) -> None:
    text = (built.folder / "report.html").read_text()
    linked = [
        cell
        for run in (planned.config for planned in built.built_plan.runs.values())
        for cell in cells(run["experiment"], "digits")
    ]
    assert "table4/local/error" in map(str, linked), "a pending one"
    for cell in linked:
        assert f'<td class="n" id="{cell}"' in text


def test_the_markdown_links_only_to_files_that_are_there(built: Any) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (built.folder / "report.md").read_text())
    assert len(targets) > 20
    for target in targets:
        assert (built.folder / target).is_file(), target


def test_every_row_of_a_markdown_table_has_the_cells_of_its_header(built: Any) -> None:
    width = None
    for line in (built.folder / "report.md").read_text().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert cells is None or width in (None, cells), line
        width = cells


def test_equal_input_gives_equal_bytes_and_a_second_build_touches_nothing(built: Any, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in built.folder.rglob("*.*")}
    again = build_report(
        built.built_plan, built.sources, built.folder, built.local, built.root / "counts", data=built.root / "data"
    )
    assert again.changed == ()
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in built.folder.rglob("*.*")}
    assert "equal to the report that was there" in str(again)


@pytest.mark.slow
def test_another_process_in_another_place_makes_equal_bytes(built: Any, tmp_path: Path) -> None:
    for name in ("results", "runs", "counts", "data"):
        shutil.copytree(built.root / name, tmp_path / name)
    (tmp_path / "plan.json").write_text(json.dumps(built.built_plan.to_json()))
    code = """if True:
        from pathlib import Path
        from pipeline.report.build import build_report
        from pipeline.settings.plan import Plan
        plan, sources = Plan.read(), [Path("results"), Path("runs"), Path("published")]
        out, local = Path("reports/digits"), Path("reports/local/digits")
        build_report(plan, sources, out, local, Path("counts"), data=Path("data"))
    """
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    for path in built.folder.rglob("*.*"):
        assert (tmp_path / "reports/digits" / path.relative_to(built.folder)).read_bytes() == path.read_bytes(), path


def test_without_any_run_every_number_is_pending(world: Any) -> None:
    build(world, world.plan())
    content = json.loads((world.root / "reports/digits/summary.json").read_text())
    assert content["runs"] == {"done": 0, "planned": 20, "published_seeds": 0}
    assert all(cell["measured"] is None for table in content["tables"].values() for cell in table.values())
    assert {claim["verdict"] for claim in content["claims"].values()} == {"not run"}
    assert "pending" in (world.root / "reports/digits/report.md").read_text()


def test_with_one_seed_the_binomial_standard_error_is_stated(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    world.train(plan)
    build(world, plan)
    text = (world.root / "reports/digits/report.md").read_text()
    assert re.search(r"\| 5\.4\d \| 1 of 1 seed, s\.e\. 1\.20 \|", text)


def test_the_papers_own_protocol_gives_differences_and_verdicts(world: Any) -> None:
    plan = world.plan("cifar10", seeds=3, dataset="cifar10", full=True)
    world.train(plan)
    build(world, plan)
    content = json.loads((world.root / "reports/cifar10/summary.json").read_text())
    assert content["reproduction"] is True
    assert content["claims"]["arl-beats-nal-164"]["verdict"] == "reproduced"
    assert content["tables"]["table3"]["table3/attention92/nal"]["difference"] == pytest.approx(0.0, abs=0.1)


def test_table_6_reads_every_profile_but_only_the_papers_schedule(world: Any) -> None:
    digits = world.plan(experiments={"attention92": 5.0})
    for profile, dataset, full in (("cifar10", "cifar10", True), ("cifar100", "cifar100", False)):
        world.train(world.plan(profile, seeds=2, dataset=dataset, full=full, experiments={"attention92": 5.0}))
    build(world, digits)
    table = json.loads((world.root / "reports/digits/summary.json").read_text())["tables"]["table6"]
    assert table["table6/attention92/cifar10"]["seeds"] == [0, 1]
    assert table["table6/attention92/cifar10"]["basis"] == "cifar10, profile cifar10, 160,000 iterations"
    assert table["table6/attention92/cifar100"]["measured"] is None


def test_table_7_has_both_errors_of_a_stand_in_in_columns_of_their_own(world: Any) -> None:
    plan = world.plan("imagenet-mini", dataset="imagenet-mini", experiments={"attention56": 40.0})
    run = plan.runs["attention56-s0"].config
    run["network"]["name"] = "attention56"
    folder = world.result("imagenet-mini", run)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"top5_error": 2.5}))
    build(world, plan)
    report = world.root / "reports/imagenet-mini"
    tables = json.loads((report / "summary.json").read_text())["tables"]
    table = tables["table7"]
    assert table["table7/attention56/imagenet-mini-top1"]["measured"] == metrics["test_error"]
    assert table["table7/attention56/imagenet-mini-top5"]["measured"] == 2.5
    assert table["table7/attention56/imagenet-mini-top5"]["difference"] is None
    assert table["table7/attention56/top1"]["printed"] == 21.76
    assert table["table7/attention56/top1"]["measured"] is None
    assert table["table7/attention92/imagenet-mini-top1"]["measured"] is None
    assert not any("imagenet-mini" in cell for cell in tables["table6"])
    text = (report / "report.md").read_text()
    assert (
        "imagenet-mini top-1 error %, not in the paper" in text and text.count("nothing here reproduces the paper") >= 1
    )


def test_a_run_of_another_profile_by_older_code_is_marked(world: Any) -> None:
    other = world.plan("cifar10", dataset="cifar10", full=True, experiments={"attention92": 5.0})
    run = other.runs["attention92-s0"].config
    world.result("cifar10", run | {"numerics": NUMERICS - 1})
    build(world, world.plan(experiments={"attention56": 5.5}))
    table = json.loads((world.root / "reports/digits/summary.json").read_text())["tables"]["table6"]
    assert table["table6/attention92/cifar10"]["marks"] == ["older training code"]


def test_names_of_runs_cannot_inject_markup(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    folder = world.result("digits", plan.runs["attention56-s0"].config)
    shutil.move(folder, folder.with_name("<img src=x onerror=alert(1)>|`x`"))
    (folder.with_name("<img src=x onerror=alert(1)>|`x`") / "metrics.json").unlink()
    build(world, plan)
    assert "<img src=x" not in (world.root / "reports/digits/report.html").read_text()


def test_nothing_from_outside_becomes_markdown_or_controls_a_terminal(world: Any) -> None:
    statement = "<img src=x> **b** [l](javascript:x)"
    plan = world.plan(experiments={"attention56": 5.5})
    plan = replace(plan, label=replace(plan.label, statement=statement))
    stored = world.stored(plan.runs["attention56-s0"].config, status="paused")
    provenance = json.loads((stored / "provenance.json").read_text())
    (stored / "provenance.json").write_text(json.dumps(provenance | {"error": "why\x1b[31m"}))
    (world.results / os.fsdecode(b"digits/a\x1b]0;t\x07\n\xff/seed0")).mkdir(parents=True)
    summary = build(world, plan)
    assert len(summary.problems) == 2
    pages = [(world.root / "reports/digits" / name).read_text() for name in ("report.md", "report.html")]
    for text in (str(summary), *pages):
        assert "x1b]0;t" in text.replace("\\]", "]")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    assert len(str(summary).splitlines()) == 4 + len(summary.verdicts)
    assert not re.search(r"(?<!\\)(<img|\[l\])|[^*\\]\*\*b", pages[0]) and "img src=x" in pages[0]


def test_figures_and_tables_that_are_no_more_are_taken_away(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    world.train(plan)
    build(world, plan)
    old = world.root / "reports/digits/figures/arl-nal-by-depth.svg"
    assert old.is_file()
    shutil.rmtree(world.results)
    assert old in build(world, plan).changed
    assert not old.exists()


def test_files_and_folders_of_the_user_in_a_report_are_kept(world: Any) -> None:
    plan = world.plan(experiments={"attention56": 5.5})
    build(world, plan)
    figures = world.root / "reports/digits/figures"
    (figures / "photo.png").write_bytes(b"mine")
    (figures / "more").mkdir()
    build(world, plan)
    assert (figures / "photo.png").read_bytes() == b"mine" and (figures / "more").is_dir()


@pytest.mark.parametrize("linked", ["", "figures", "tables"])
def test_a_report_is_not_written_through_a_link(world: Any, linked: str) -> None:
    elsewhere, place = world.root / "elsewhere", world.root / "reports" / "digits" / linked
    elsewhere.mkdir()
    (elsewhere / "photo.png").write_bytes(b"mine")
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"digits/?{linked}: is a link"):
        build(world, world.plan(experiments={"attention56": 5.5}))
    assert [path.name for path in elsewhere.iterdir()] == ["photo.png"]


def test_damaged_pictures_and_manifests_are_named(world: Any) -> None:
    plan = world.plan(experiments={"attention92-noise10": 5.2})
    folder = world.result("digits", plan.runs["attention92-noise10-s0"].config)
    (folder / "masks.npz").write_bytes(b"PK not a zip file")
    manifest = world.noisy(plan) / "noisy/digits/10/manifest.json"
    manifest.write_text('{"checksum": "another"}')
    summary = build_report(
        plan, world.sources, world.root / "out", world.root / "local", None, data=world.root / "data"
    )
    assert summary.runs_done == 1
    assert len(summary.problems) == 2
    assert any("masks.npz: cannot be read" in problem for problem in summary.problems)
    assert any("not the noisy labels of the plan" in problem for problem in summary.problems)


def test_the_index_opens_with_results_the_nearest_to_the_paper_first(world: Any) -> None:
    few = {"attention56": 5.5, "attention56-nal": 5.9}
    profiles = (("digits", "digits", False), ("short", "cifar10", False), ("whole", "cifar10", True))
    for profile, dataset, full in profiles:
        plan = world.plan(profile, dataset=dataset, full=full, experiments=few)
        world.train(plan)
        build(world, plan)
    build(world, world.plan("empty", dataset="cifar10", full=True, experiments={"attention92": 5.0}))
    (world.root / "reports/broken").mkdir()
    (world.root / "reports/broken/summary.json").write_text("[]")
    build_index(world.root / "reports", {"digits": "Stand-in.", "imagenet": "ImageNet at the paper's protocol."})
    for name, page in (("index.md", "report.md"), ("index.html", "report.html")):
        text = (world.root / "reports" / name).read_text()
        places = [text.index(f"{profile}/{page}") for profile in ("whole", "short", "digits")]
        assert places == sorted(places) and f"empty/{page}" not in text
        assert text.count("trainable claim") == 3
        assert "whole/figures/arl-nal-by-depth.svg" in text
        assert min(text.index(f"make repro PROFILE={other}") for other in ("empty", "imagenet")) > places[-1]
        assert "make repro PROFILE=digits" not in text and "broken/summary.json" in text


def test_a_report_opens_with_its_results_and_folds_away_what_was_not_run(world: Any) -> None:
    plan = world.plan(seeds=3)
    world.train(plan)
    build(world, plan)
    for name in ("report.md", "report.html"):
        text = (world.root / "reports/digits" / name).read_text()
        first = text.index("Of 16 trainable claims")
        assert first < text.index("arl-nal-by-depth") < text.index("Holds") < text.index("Not run in this profile")
        assert text.index("<details>") < text.index("Not run in this profile") < text.index("</details>")
        assert "16 claims are tested at once" in text and "probability 0.19" in text and "Holm" in text


def test_importing_the_report_loads_no_heavy_framework() -> None:
    code = "import sys, pipeline.report; print(sorted({'torch', 'ray', 'mlflow', 'dvc'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "[]"
