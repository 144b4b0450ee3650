"""What MLflow is told about a run: parameters, tags, data sets and a description, all from the run's own files."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runs.finished import read_spec
from pipeline.runs.records import METRICS, RESPONSES, Metrics, Provenance, Responses
from pipeline.tracking.paper import Cell, cells, table_title
from pipeline.utils.git import Origin, origin

PAPER_URL = "https://arxiv.org/abs/1704.06904"
ABOUT = f"From a reproduction of [Residual Attention Network for Image Classification]({PAPER_URL})."
KIND, IDENTITY, EXPERIMENT, PARENT = "kind", "identity", "experiment", "mlflow.parentRunId"
PAGE = "report.html"
DIGEST_LENGTH = 36  # MLflow's limit for the digest of a data set


@dataclass(frozen=True)
class Described:
    """A run folder as MLflow sees it; `search` is the run of the search that it is a trial of."""

    folder: Path
    config: Mapping[str, Any]
    provenance: Provenance | None
    search: str | None = None

    @classmethod
    def read(cls, folder: Path, search: str | None = None) -> Described:
        """A run folder; without a configuration it raises UserError."""
        return cls(folder, read_spec(folder).to_json(), Provenance.read(folder), search)

    @property
    def name(self) -> str:
        """E.g. ``attention56-s0``."""
        return f"{self.config['experiment']}-s{self.config['seed']}"

    @property
    def cells(self) -> list[Cell]:
        """The cells of the paper's tables that the run fills; a trial fills none."""
        if self.search:
            return []
        return cells(self.config["experiment"], self.config["data"]["dataset"])


def parameters(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The full configuration, nested keys joined by dots."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= parameters(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def identity_tags(run: Described) -> dict[str, str]:
    """The tags by which a run is found again; a trial, within its search."""
    found = {IDENTITY: run.config["identity"], EXPERIMENT: run.config["experiment"]}
    return found | ({KIND: "trial", PARENT: run.search} if run.search else {KIND: "run"})


def run_tags(run: Described, profile: str) -> dict[str, str]:
    """Everything one may want to filter runs by, and where the run came from."""
    data = run.config["data"]
    found = identity_tags(run) | {
        "seed": str(run.config["seed"]),
        "profile": profile,
        "data.checksum": data["checksum"],
        "DVC_STAGE": os.environ.get("DVC_STAGE", f"train@{profile}-{run.config['experiment']}-{run.config['seed']}"),
    }
    if run.cells:
        found["paper.tables"] = ",".join(dict.fromkeys(cell.table for cell in run.cells))
        found["paper.cells"] = ",".join(map(str, run.cells))
    if data["noise_checksum"]:
        found["data.noise_checksum"] = data["noise_checksum"]
    return found | origin_tags(run.provenance)


def origin_tags(provenance: Provenance | None) -> dict[str, str]:
    """Commit, command, hardware and versions: of the last segment of a run, or of this process before the first."""
    if provenance is None or not provenance.segments:
        return _source(_own_origin())
    last = provenance.segments[-1]
    versions = {f"version.{name}": version for name, version in last.versions.items()}
    devices = dict.fromkeys(segment.device for segment in provenance.segments)
    return (
        _source(Origin(last.commit, last.dirty, last.command))
        | versions
        | {
            "hardware": "; ".join(devices),
            "segments": json.dumps(
                [
                    {
                        "iterations": f"{segment.from_iteration}-{segment.to_iteration}",
                        "device": segment.device,
                        "hostname": segment.hostname,
                        "workers": segment.workers,
                        "threads": segment.threads,
                        "gpus": segment.gpus,
                        "seconds": round(segment.seconds, 1),
                    }
                    for segment in provenance.segments[-20:]
                ]
            ),
        }
    )


def _source(code: Origin) -> dict[str, str]:
    found = {"mlflow.source.name": code.command, "mlflow.source.type": "LOCAL"}
    if code.commit is None:
        return found
    return found | {"mlflow.source.git.commit": code.commit, "mlflow.source.git.dirty": str(code.dirty)}


@functools.cache
def _own_origin() -> Origin:
    return origin(Path(__file__).resolve().parents[2])


@dataclass(frozen=True)
class Data:
    """A data set that a run used. `context` is train or test."""

    name: str
    digest: str
    context: str
    source: dict[str, str]
    profile: dict[str, Any]


def datasets(config: Mapping[str, Any]) -> list[Data]:
    """Training data (with their noisy labels, where there are any) and test data, by checksum."""
    data = config["data"]
    base = data["dataset"]
    source = {"prepared": f"data/prepared/{base}"}
    test = Data(f"{base}-test", data["checksum"][:DIGEST_LENGTH], "test", source, {"images": data["test_images"]})
    profile = {"images": data["train_images"], "classes": len(data["classes"]), "image_size": data["image_size"]}
    if not data["noise"]:
        return [Data(base, test.digest, "train", source, profile), test]
    labels = {"labels": f"data/noisy/{base}/{data['noise']}"}
    digest = data["noise_checksum"][:DIGEST_LENGTH]
    return [Data(f"{base}-noise{data['noise']}", digest, "train", source | labels, profile), test]


def note(run: Described, profile: str, tables: Mapping[str, str], report: str) -> str:
    """The run's description in Markdown.

    `tables` gives the link of each table of the paper, `report` that of the profile's page, where each cell has an id.
    """
    config, data = run.config, run.config["data"]
    noise = f" with {data['noise']} % of the training labels redrawn" if data["noise"] else ""
    lines = [
        f"`{config['network']['name']}` on `{data['dataset']}`{noise}: {config['protocol']['iterations']:,} iterations"
        f" of {config['protocol']['batch_size']} images, seed {config['seed']}, profile `{profile}`.",
        "",
    ]
    if run.cells:
        lines += ["| table | row, column | trace |", "|---|---|---|"]
        lines += [
            f"| [{table_label(cell.table)}]({tables[cell.table]}) | [{cell.row}, {cell.column}]({report}#{cell}) |"
            f" `python -m pipeline trace {cell}` |"
            for cell in run.cells
        ]
        lines.append("")
    return "\n".join([*lines, f"{ABOUT} Its files, from which all of this can be rebuilt: `{run.folder.name}`."])


def experiment_note(profile: str) -> str:
    """Description of the MLflow experiment of a profile."""
    return f"{ABOUT} Profile `{profile}`, its runs nested under the first table that shows them."


def table_label(table: str) -> str:
    """``table1`` as the paper writes it: ``Table 1``."""
    word = table.rstrip("0123456789")
    return f"{word.capitalize()} {table.removeprefix(word)}"


def table_note(table: str, profile: str) -> str:
    """Description of the parent run of a table."""
    return (
        f"{table_label(table)} of [arXiv:1704.06904]({PAPER_URL}): {table_title(table)}. Its runs of profile"
        f" `{profile}` are nested below; measured beside printed: `reports/{profile}/report.md`."
    )


def search_note(name: str, profile: str) -> str:
    """Description of the parent run of a search."""
    return f"Search `{name}`, profile `{profile}`: its trials are nested below."


def report_note(profile: str) -> str:
    """Description of the run that holds a report."""
    return f"The report of profile `{profile}` as last generated: `{PAGE}` among the artifacts."


def summary(folder: Path) -> dict[str, float]:
    """Numbers that a finished run has once, those of its curves left out; none of a run that is not finished."""
    if not (folder / METRICS).exists():
        return {}
    curves = ("train_loss", "train_error", "test_loss", "test_error", "top5_error")
    metrics = Metrics.read(folder).to_json()
    found = {key: float(value) for key, value in metrics.items() if key not in curves and not isinstance(value, str)}
    if (folder / RESPONSES).exists():
        responses = Responses.read(folder)
        found |= _numbered("response.stage", responses.stages)
        found |= _numbered("response.relative", responses.relative)
    return found


def _numbered(prefix: str, values: Iterable[float]) -> dict[str, float]:
    return {f"{prefix}{number}": float(value) for number, value in enumerate(values, start=1)}
