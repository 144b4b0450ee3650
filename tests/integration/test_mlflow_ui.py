"""What `make ui` serves, in a real browser: nested runs and trials, descriptions, charts.

`PICTURES=docs/pictures` saves what the browser shows; `PICTURES_OF=.` shows a project's own runs instead of made-up
ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import tracking
from tests.browser import Browser, browser, programs
from tests.integration.mlflow_server import MlflowServer
from tests.unit.tracking.run_folders import make_spec, write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        programs() is None, reason="needs Chromium and chromedriver (Debian: chromium, chromium-driver)"
    ),
]

PROJECT = Path(__file__).parents[2]
EXPERIMENTS = ["attention56", "attention56-channel", "attention56-spatial", "attention92"]

# Model training, not chats; and no assistant over the page.
SETTINGS = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
SHOWS = "return arguments[0].every((text) => document.body.innerText.includes(text))"
EXPAND = """
const closed = [...document.querySelectorAll("[role=row] button[data-component-id*=runnamecellrenderer]")];
closed.forEach((button) => button.click());
return closed.length;
"""
POINTS = """
const charts = [...document.querySelectorAll(".js-plotly-plot")];
return charts.some((chart) => chart.querySelectorAll(".scatterlayer .point").length > 1);
"""
LINKS = """
return document.querySelectorAll(`a[href$="${arguments[0]}"]`).length > 1;  // in the description, and as the parent
"""
LINK = """
const link = [...document.querySelectorAll("td a")].find((link) => link.innerText === arguments[0]);
return link && link.href;
"""


@dataclass(frozen=True)
class Page:
    """The UI in a browser, and the store that it shows."""

    window: Browser
    address: str
    client: MlflowClient
    experiment: str

    def open(self, path: str) -> None:
        self.window.open("about:blank")  # or else what the last page showed stays for a while
        self.window.open(f"{self.address}/#/experiments/{self.experiment}/runs{path}")

    def run(self, name: str) -> Run:
        [found] = self.client.search_runs([self.experiment], f"attributes.run_name = '{name}'")
        return found

    def picture(self, name: str) -> None:
        if "PICTURES" in os.environ:
            self.window.picture(PROJECT / os.environ["PICTURES"] / f"mlflow-{name}.png")


def write_project(root: Path) -> Path:
    """A project folder with runs in tables, and trials of a search."""
    uri = tracking.tracking_uri(root)
    folders = [write_run(root / "runs", make_spec(experiment)) for experiment in EXPERIMENTS]
    for folder in folders:
        samples = "".join(f"{1772359200000 + 5000 * number},{90 + number}.0\n" for number in range(4))
        (folder / "system-node1.csv").write_text("milliseconds,cpu_utilization_percentage\n" + samples)
    assert not tracking.sync(uri, folders).failed
    search = tracking.open_parent(uri, "search", "optimiser", "digits")
    trials = [write_run(root / "trials", make_spec(seed=seed)) for seed in (5, 6)]
    assert not tracking.sync(uri, trials, parent=search).failed
    tracking.close_parent(uri, search, "FINISHED")
    (root / "report").mkdir()
    (root / "report" / "report.html").write_text("<!doctype html><p>The report.</p>")
    assert tracking.log_report(uri, "digits", root / "report")
    return root


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("PYTHONPATH", str(PROJECT))
        scratch = tmp_path_factory.mktemp("ui")
        root = PROJECT / os.environ["PICTURES_OF"] if "PICTURES_OF" in os.environ else write_project(scratch)
        server = MlflowServer(root)
        server.log = scratch / "ui.log"
        server.command = [sys.executable, "-m", "pipeline", "ui", "--port", str(server.port)]
        client = MlflowClient(tracking_uri=tracking.tracking_uri(root))
        experiment = client.get_experiment_by_name("residual-attention/digits").experiment_id
        with server, browser(scratch / "profile", width=1600) as window:
            window.open(server.uri)
            for key, value in SETTINGS.items():
                window.run("localStorage.setItem(arguments[0], arguments[1])", key, value)
            yield Page(window, server.uri, client, experiment)


def test_runs_are_nested_under_tables_and_trials_under_their_search(page: Page) -> None:
    runs = {run.info.run_id: run for run in page.client.search_runs([page.experiment])}
    children: dict[str, list[str]] = {}
    for run in runs.values():
        if parent := run.data.tags.get("mlflow.parentRunId"):
            children.setdefault(runs[parent].info.run_name, []).append(run.info.run_name)
    page.open("")
    page.window.wait(SHOWS, list(children))
    names = [name for nested in children.values() for name in nested]
    assert names
    assert not any(name in page.window.text().splitlines() for name in names)
    assert page.window.wait(EXPAND) == len(children)
    page.window.wait(SHOWS, names)


def test_error_network_and_noise_are_the_columns_that_make_ui_leads_to(page: Page) -> None:
    shared = page.client.get_experiment(page.experiment).tags["mlflow.note.content"]
    address = f"/experiments/{page.experiment}/runs?viewStateShareKey=errors"
    assert f"(#{address})" in shared
    page.window.open("about:blank")
    page.window.open(f"{page.address}/#{address}")
    runs = page.client.search_runs([page.experiment], "tags.kind = 'table' and metrics.`test/error` > 0")
    assert runs, "tables carry their best error"
    page.window.wait(SHOWS, ["test/error", "network", "noise"])
    page.window.wait(SHOWS, [f"{run.data.metrics['test/error']:.3f}".rstrip("0")[:4] for run in runs])
    page.window.wait(EXPAND)
    page.window.wait(SHOWS, ["cifar_"])
    page.picture("runs")


def test_a_run_shows_its_curves_first(page: Page) -> None:
    page.open(f"/{page.run('attention56-s0').info.run_id}/model-metrics")
    page.window.wait(SHOWS, ["test/error", "test/loss"])  # charts further down are drawn when one comes there
    page.window.wait(POINTS)
    page.picture("metrics")


def test_a_run_shows_what_its_machine_did(page: Page) -> None:
    page.open(f"/{page.run('attention56-s0').info.run_id}/system-metrics")
    page.window.wait(SHOWS, ["cpu_utilization_percentage"])
    page.window.wait(POINTS)


def test_the_description_of_a_run_leads_to_its_table_and_to_the_report(page: Page) -> None:
    page.open(f"/{page.run('attention56-s0').info.run_id}")
    page.window.wait(SHOWS, ["python -m pipeline trace table1/mixed/error"])
    page.window.wait(LINKS, page.run("Table 1").info.run_id)
    page.picture("run")
    cell = page.window.wait(LINK, "mixed, error")
    page.window.open(page.window.wait(LINK, "Table 1"))
    page.window.wait(SHOWS, ["Activation of the mask, Attention-56"])
    assert page.run("Table 1").info.run_id in page.window.run("return location.href")
    page.window.open("about:blank")
    page.window.open(cell)
    page.window.wait(SHOWS, ["report.html"])
    page.window.wait("return document.querySelector('iframe') !== null")  # which shows the page
    assert page.window.run("return location.href").endswith("/artifacts/report.html#table1/mixed/error")
