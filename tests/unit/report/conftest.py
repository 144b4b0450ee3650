"""Run folders made up for the tests: synthetic numbers, in the files of real runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.noise import noise_seed
from pipeline.settings.plan import Label, Plan
from tests.plans import make_plan

ERRORS = {
    "attention56": 5.5, "attention56-channel": 6.2, "attention56-spatial": 6.3, "attention56-nal": 5.9,
    "attention56-local": 6.5, "attention92": 5.0, "attention92-nal": 5.4, "attention128": 4.4,
    "attention128-nal": 5.6, "attention164": 4.3, "attention164-nal": 7.2,
    "attention92-noise10": 5.2, "attention92-noise30": 5.8, "attention92-noise50": 7.3, "attention92-noise70": 15.8,
    "resnet164": 5.5, "resnet164-noise10": 5.9, "resnet164-noise30": 6.6, "resnet164-noise50": 8.4,
    "resnet164-noise70": 17.2,
}  # fmt: skip
PARAMETERS = {"attention56": 1030362, "attention92": 1841242, "attention128": 2652122, "attention164": 3463002,
              "resnet164": 1703258}  # fmt: skip
FULL = {
    "iterations": 160000, "batch_size": 64, "learning_rate": 0.1, "milestones": [64000, 96000], "gamma": 0.1,
    "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "padding": 4, "flip": True, "batch_norm_group": 64,
}  # fmt: skip
CIFAR_SIZES = {"image_size": 32, "train_images": 50000, "test_images": 10000}
SIZES = {"cifar10": CIFAR_SIZES, "cifar100": CIFAR_SIZES}
CHECKSUMS = {"cifar10": "7539a57b0032eef22293fd3771d3c27aecd7a5bdd7365913ed957b6a8c21d4b0"}
ABLATIONS = {"nal": {"learning": "nal"}, "channel": {"activation": "channel"}, "spatial": {"activation": "spatial"},
             "local": {"mask": "local"}}  # fmt: skip
STAND_IN_SIZES = {"image_size": 16, "train_images": 1437, "test_images": 360}
SHORT = FULL | {"iterations": 180, "milestones": [90, 135], "padding": 2, "flip": False}


class World:
    """A folder with a plan and its runs, whole or damaged at will."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = root / "results"
        self.store = root / "runs"
        self.published = root / "published"
        self.folder = self.local = root
        self.built_plan: Any = None
        self.summary: Any = None

    @property
    def sources(self) -> list[Path]:
        return [self.results, self.store, self.published]

    def plan(
        self,
        profile: str = "digits",
        seeds: int = 1,
        dataset: str = "digits",
        full: bool = False,
        experiments: Mapping[str, float] = ERRORS,
    ) -> Plan:
        """A plan of every experiment of the tables."""
        protocol = FULL if full else SHORT
        runs = [config(name, seed, dataset, protocol) for name in experiments for seed in range(seeds)]
        standin = dataset not in ("cifar10", "cifar100", "imagenet")
        statement = "Synthetic stand-in data: nothing here reproduces the paper." if standin else "The paper's data."
        label = Label(standin=standin, schedule="full" if full else "short", statement=statement)
        return make_plan(runs, profile=profile, label=label, parameters=[parameters_of(run) for run in runs])

    def train(self, plan: Plan, rows: int = 8) -> None:
        """Write every run of the plan into results/, each with `rows` evaluations."""
        for run in (planned.config for planned in plan.runs.values()):
            self.result(plan.profile, run, rows=rows)

    def result(self, profile: str, run: Mapping[str, Any], **options: Any) -> Path:
        """One run in results/."""
        return write_run(self.results / profile / run["experiment"] / f"seed{run['seed']}", run, **options)

    def noisy(self, plan: Plan) -> Path:
        """A folder of data with the manifests of the plan's noisy labels."""
        for run in (planned.config for planned in plan.runs.values()):
            level = run["data"]["noise"]
            path = self.root / "data/noisy" / run["data"]["dataset"] / str(level) / "manifest.json"
            if level and not path.is_file():
                path.parent.mkdir(parents=True)
                matrix = np.full((10, 10), level, dtype=int) + (900 - 10 * level) * np.eye(10, dtype=int)
                seed = noise_seed(run["data"]["dataset"], level, run["data"].get("noise_draw", 0))
                content = {"checksum": run["data"]["noise_checksum"], "matrix": matrix.tolist(), "seed": seed}
                write_json(path, content)
        return self.root / "data"

    def stored(self, run: Mapping[str, Any], status: str = "finished", profile: str = "digits") -> Path:
        """One run in the store, with its provenance."""
        folder = write_run(self.store / f"{run['experiment']}-s{run['seed']}-{run['identity']}", run)
        write_provenance(folder, status, profile)
        return folder


def config(experiment: str, seed: int, dataset: str, protocol: dict[str, Any]) -> dict[str, Any]:
    """A config.json with an identity made up from the name."""
    base, _, ablation = experiment.partition("-")
    options = ABLATIONS.get(ablation, {})
    key = f"{experiment}-{seed}-{dataset}-{protocol['iterations']}"
    noise = int(experiment.split("noise")[1]) if "noise" in experiment else 0
    return {
        "identity": hashlib.sha256(key.encode()).hexdigest()[:12],
        "experiment": experiment,
        "seed": seed,
        "network": {"name": f"cifar_{base.replace('resnet', 'preresnet')}", "num_classes": 10, "options": options},
        "data": {
            "dataset": dataset, "noise": noise, "checksum": CHECKSUMS.get(dataset, "c" * 64),
            "noise_checksum": "d" * 64 if noise else None,
            **SIZES.get(dataset, STAND_IN_SIZES), "classes": [str(i) for i in range(10)],
        },
        "protocol": protocol,
        "precision": "float32", "channels_last": False, "compile": False, "numerics": 2,
    }  # fmt: skip


def parameters_of(run: Mapping[str, Any]) -> int:
    return PARAMETERS.get(run["experiment"].split("-")[0], 10**6)


def write_run(folder: Path, run: Mapping[str, Any], rows: int = 8) -> Path:
    """The small files of a finished run: synthetic, but as consistent as real ones."""
    folder.mkdir(parents=True)
    experiment, seed, protocol = run["experiment"], run["seed"], run["protocol"]
    random = np.random.default_rng([seed, *experiment.encode()])
    error = round(ERRORS.get(experiment, 5.0) + 0.05 * float(random.standard_normal()), 4)
    write_json(folder / "config.json", run)
    write_history(folder / "history.csv", protocol["iterations"], error, rows)
    metrics = {
        "test_error": error, "test_loss": 0.2, "train_error": 1.0, "train_loss": 0.05, "best_test_error": error - 0.02,
        "best_epoch": 7.0, "iterations": protocol["iterations"], "epochs": 8.0,
        "parameters": parameters_of(run), "multiply_adds": 10 * parameters_of(run),
        "test_images": run["data"]["test_images"], "weights_sha256": "e" * 64,
    }  # fmt: skip
    write_json(folder / "metrics.json", metrics)
    relative = [1.0, 0.02, 0.008] if "nal" in experiment else [1.0, 0.5, 0.3]
    write_json(folder / "responses.json", {"stages": [2 * value for value in relative], "relative": relative})
    write_masks(folder / "masks.npz", random, attention=experiment.startswith("attention"))
    return folder


def write_history(path: Path, iterations: int, error: float, rows: int) -> None:
    """A curve that falls to `error` at the last of `rows` evaluations."""
    lines = ["epoch,iteration,learning_rate,train_loss,train_error,test_loss,test_error"]
    for row in range(1, rows + 1):
        test = error + (rows - row) * 56.0 / rows
        lines.append(f"{row},{iterations * row // rows},0.1,0.5,{test + 1},0.6,{test}")
    path.write_text("\n".join(lines) + "\n")


def write_masks(path: Path, random: np.random.Generator, attention: bool) -> None:
    """Masks of one module a stage over eight small pictures."""
    arrays: dict[str, Any] = {
        "images": random.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
        "labels": np.arange(8),
        "predictions": np.arange(8),
    }
    for stage, side in ((1, 16), (2, 8), (3, 4)) if attention else ():
        for name in ("mask", "channel_mask", "channel_before", "channel_after"):
            arrays[f"s{stage}m1_{name}"] = random.random((8, side, side)).astype(np.float16)
    np.savez(path, **arrays)


def write_provenance(folder: Path, status: str, profile: str) -> None:
    """Where, when and by what the run was made."""
    segment = {
        "from_iteration": 0, "to_iteration": 90, "started": "2026-01-01T00:00:00Z", "seconds": 12.5,
        "images_per_second": 460.0, "hostname": "synthetic-host", "device": "cpu: Synthetic CPU, 1 thread",
        "threads": 1, "workers": 1, "versions": {"python": "3.11", "torch": "2.11"}, "commit": "f" * 40,
        "dirty": False, "command": "python -m pipeline launch",
    }  # fmt: skip
    write_json(
        folder / "provenance.json",
        {"status": status, "profile": profile, "segments": [segment], "mlflow_run_id": "a" * 32, "error": None},
    )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def counts_folder(root: Path) -> Path:
    """Counts of a few networks, as `python -m pipeline counts` lays them out."""
    path = root / "counts" / "networks.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "network,dataset,num_classes,image_size,parameters,multiply_adds,trunk_depth,our_reading\n"
        "attention92,imagenet,1000,224,52466344,10533789696,92,\n"
        "attention92,imagenet,1000,320,52466344,21495398400,92,\n"
        "cifar_attention92,cifar10,10,32,1841242,211913216,92,widths inferred\n"
        "preresnet200,imagenet,1000,224,64666280,15007481856,200,\n"
    )
    return path.parent


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A world with the finished report of a `digits` profile of three seeds, one run of which is by older code."""
    from pipeline.report.build import build_report

    world = World(tmp_path_factory.mktemp("built"))
    world.built_plan = plan = world.plan(seeds=3)
    for name, run in ((planned.name, planned.config) for planned in plan.runs.values()):
        if name == "attention164-nal-s2":
            world.result("digits", {**run, "numerics": 1, "identity": "0" * 12})
        elif name == "attention128-nal-s1":
            world.stored(run, status="paused")
        elif not name.startswith("attention56-local"):
            world.stored(run) if run["seed"] == 0 else world.result("digits", run)
    world.folder, world.local = world.root / "reports/digits", world.root / "reports/local/digits"
    world.summary = build_report(
        plan, world.sources, world.folder, world.local, counts_folder(world.root), data=world.noisy(plan)
    )
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty world of runs."""
    return World(tmp_path)
