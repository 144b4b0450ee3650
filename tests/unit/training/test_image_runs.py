"""Whole runs on images: top-1 and top-5, and a resume in the middle of an epoch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models import create_model
from models.staged import stages_of
from pipeline import data
from pipeline.data.manifest import read_manifest
from pipeline.data.remote import CACHE, upload
from pipeline.runs.execution import Execution
from pipeline.runs.records import DETERMINISTIC, WEIGHTS, Evaluation, read_rows
from pipeline.runs.spec import Crops, DataSpec, NetworkSpec, RunSpec
from pipeline.training import loop
from pipeline.training.session import LocalSession
from pipeline.utils.errors import UserError
from tests.plans import make_protocol
from tests.unit.data.image_tree import SmallImageNet, write_tree

CROPS = Crops(train=16, test=24, colour=0.1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "imagenet", SmallImageNet())
        data.fetch("imagenet", str(write_tree(root / "tree")), root)
        data.prepare("imagenet", root)
    return data.prepared_folder(root, "imagenet")


@pytest.fixture
def spec(prepared: Path) -> RunSpec:
    """Five steps of 8 images, in two groups of batch norm each: three epochs and a third, of 12 images."""
    manifest = read_manifest(prepared)
    classes = tuple(manifest["classes"])
    protocol = make_protocol(
        iterations=5, batch_size=8, learning_rate=0.05, milestones=(3,), padding=0, flip=True, batch_norm_group=4
    )
    found = DataSpec("imagenet", 0, manifest["checksum"], None, 16, 12, 6, classes)
    return RunSpec("attention56", 0, NetworkSpec("cifar_attention56", len(classes)), found, protocol, crops=CROPS)


def run_in(folder: Path, prepared: Path, threads: int = 1) -> Execution:
    folder.mkdir(exist_ok=True)
    return Execution(folder, prepared, noisy=None, profile="imagenet", threads=threads)


def test_a_run_on_images_measures_both_errors(spec: RunSpec, prepared: Path, tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", prepared)
    assert loop.train(spec, run, LocalSession()) == "finished"
    metrics = json.loads((run.folder / "metrics.json").read_text())
    history = read_rows(run.folder / "history.csv", Evaluation)
    assert metrics["test_images"] == 6
    assert metrics["top5_error"] == history[-1].top5_error == 0.0  # of three classes
    assert (run.folder / "history.csv").read_text().splitlines()[0].endswith("test_error,top5_error")


def test_a_run_that_is_stopped_in_the_middle_of_an_epoch_ends_bit_equal(
    spec: RunSpec, prepared: Path, tmp_path: Path
) -> None:
    straight, broken = run_in(tmp_path / "straight", prepared), run_in(tmp_path / "broken", prepared)
    assert loop.train(spec, straight, LocalSession()) == "finished"
    statuses = ["paused"]
    while statuses[-1] == "paused":  # after every step
        statuses.append(loop.train(spec, broken, LocalSession(), should_stop=lambda: True))
    assert statuses == ["paused"] * 5 + ["finished"]
    for name in (*DETERMINISTIC, WEIGHTS):
        assert (broken.folder / name).read_bytes() == (straight.folder / name).read_bytes(), name


def test_a_run_on_a_node_without_the_images_brings_them_and_ends_bit_equal(
    spec: RunSpec, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = f"file://{tmp_path}/datasets"
    upload(prepared, remote)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    here = run_in(tmp_path / "here", prepared)
    there = replace(run_in(tmp_path / "there", tmp_path / "not-here"), remote=remote)
    for run in (here, there):
        assert loop.train(spec, run, LocalSession()) == "finished"
    for name in (*DETERMINISTIC, WEIGHTS):
        assert (there.folder / name).read_bytes() == (here.folder / name).read_bytes(), name
    assert (tmp_path / "cache" / f"imagenet-{spec.data.checksum[:12]}" / "train-00000.bin").is_file()


def test_other_images_than_the_runs_are_refused(spec: RunSpec, prepared: Path, tmp_path: Path) -> None:
    foreign = replace(spec, data=replace(spec.data, checksum="0" * 64))
    with pytest.raises(UserError, match=r"checksum = .* is not '0000"):
        loop.train(foreign, run_in(tmp_path / "run", prepared), LocalSession())


@pytest.mark.parametrize("key", ["train", "test", "colour", "decoder"])
def test_each_setting_for_images_is_part_of_the_identity(spec: RunSpec, key: str) -> None:
    changed = replace(spec, crops=replace(CROPS, **{key: 3}))
    assert changed.identity != spec.identity
    assert RunSpec.from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_runs_on_arrays_know_nothing_of_images() -> None:
    """The identity is that of a run made before there were images; another one would train it again."""
    protocol = make_protocol(iterations=160000, batch_size=64, milestones=(64000, 96000), padding=4, flip=True)
    found = DataSpec("cifar10", 0, "c" * 64, None, 32, 50000, 10000, ("airplane",))
    spec = RunSpec("attention56", 0, NetworkSpec("cifar_attention56", 10), found, protocol, numerics=1)
    assert spec.identity == "dd300f3d57ac"
    assert "crops" not in spec.to_json()


@pytest.mark.parametrize(
    ("name", "stages"),
    [("attention56", 4), ("resnext101_32x4d", 4), ("inception_resnet_v1", 3), ("inception_resnet_v2", 3)],
)
def test_every_network_of_table_7_has_stages(name: str, stages: int) -> None:
    model = create_model(name, device="meta")
    seen: list[torch.Size] = []
    for stage in stages_of(model):
        stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    model(torch.empty(2, 3, 96, 96, device="meta"))
    assert len(seen) == stages
    assert sorted((shape[-1] for shape in seen), reverse=True) == [shape[-1] for shape in seen]


def worker(rank: int, world_size: int, spec: RunSpec, run: Execution, rendezvous: str, stop: bool) -> None:
    """What each of several processes does: train, and where `stop` is set pause whenever that is asked."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    session = LocalSession()
    session.rank, session.world_size = rank, world_size  # type: ignore[misc]
    loop.train(spec, run, session, should_stop=lambda: stop)
    dist.destroy_process_group()


def train_together(workers: int, spec: RunSpec, run: Execution, *, stop: bool = False) -> None:
    rendezvous = f"{run.folder}/rendezvous{len(list(run.folder.iterdir()))}"
    mp.spawn(worker, (workers, spec, run, rendezvous, stop), nprocs=workers)


@pytest.mark.slow
def test_two_workers_resume_bit_equal_and_train_like_one(spec: RunSpec, prepared: Path, tmp_path: Path) -> None:
    """They agree on a pause after 10 steps, which are six epochs and two thirds; a batch has four groups."""
    protocol = replace(spec.protocol, iterations=12, batch_norm_group=2, learning_rate=1e-7)
    spec = replace(spec, protocol=protocol)
    alone, straight, broken = (run_in(tmp_path / name, prepared) for name in ("alone", "straight", "broken"))
    train_together(1, spec, alone)
    train_together(2, spec, straight)
    train_together(2, spec, broken, stop=True)
    assert (broken.folder / "checkpoints" / "000000010").is_dir()
    train_together(2, spec, broken)
    for name in (*DETERMINISTIC, WEIGHTS):
        assert (broken.folder / name).read_bytes() == (straight.folder / name).read_bytes(), name
    one, two = (read_rows(run.folder / "history.csv", Evaluation) for run in (alone, straight))
    assert [row.train_loss for row in two] == pytest.approx([row.train_loss for row in one], abs=1e-4)
    assert [row.test_loss for row in two] == pytest.approx([row.test_loss for row in one], abs=1e-3)
