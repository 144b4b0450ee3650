"""Files at the root of the project that other programs read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.data import DATASETS

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "Attention-56, ARL": ("ARL56", "attention56"),
    "Attention-56, NAL": ("NAL56", "attention56-nal"),
    "Attention-92, ARL": ("ARL92", "attention92"),
    "ResNet-164": ("R164", "resnet164"),
}


@pytest.mark.parametrize(
    ("schema", "file"),
    [("citation-file-format", "CITATION.cff"), ("github-workflows", ".github/workflows/ci.yml")],
)
def test_a_file_is_valid_by_its_published_schema(schema: str, file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_the_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_workflow_runs_every_part_of_ci() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    parts = workflow["jobs"]["check"]["strategy"]["matrix"]["part"]
    assert f"set -- {' '.join(parts)}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_dockerfile_has_no_complaint_of_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_every_data_set_has_a_folder_for_noisy_labels_that_stages_can_depend_on() -> None:
    assert {path.parent.name for path in (ROOT / "data" / "noisy").glob("*/.gitkeep")} == set(DATASETS)


def test_the_numbers_of_the_reproducibility_page_are_those_of_report_and_runs() -> None:
    text = (ROOT / "docs" / "reproducibility.md").read_text()
    rows = dict(re.findall(r"^\| ([A-Z]\S+, \w+|ResNet-164) \| (.*) \|$", text, re.MULTILINE))
    assert rows.keys() == NETWORKS.keys()
    reported = json.loads((ROOT / "reports" / "cifar10-64th" / "metrics.json").read_text())
    for network, (name, experiment) in NETWORKS.items():
        (run,) = (ROOT / "published" / "cifar10-64th").glob(f"{experiment}-s0-*")
        seconds = sum(part["seconds"] for part in json.loads((run / "provenance.json").read_text())["segments"])
        assert rows[network] == f"{reported[name]:.2f} | {seconds:.0f}"


def test_the_counts_of_the_reproducibility_page_are_those_of_the_reports() -> None:
    text = (ROOT / "docs" / "reproducibility.md").read_text()
    claims = json.loads((ROOT / "reports" / "cifar10" / "summary.json").read_text())["claims"]
    counted = [claim["holds"] for claim in claims.values() if claim["verdict"].startswith("count")]
    assert (len(counted), counted.count(True)) == (6, 5) and "Six claims" in text and "Five agree" in text
    assert f"{claims['parameters-resnet200']['effect'] - 100:.2f} % more" in text.replace("\n", " ")
    assert not any(claim["holds"] is not None for claim in claims.values() if not claim["verdict"].startswith("count"))
