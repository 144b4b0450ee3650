from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import data, runs
from pipeline.runs.execution import Checkpoints, Execution
from pipeline.runs.records import DETERMINISTIC, TIMING, WEIGHTS, Evaluation, Metrics, Provenance, Timing, read_rows
from pipeline.runs.spec import RunSpec
from pipeline.training import finish, loop, state
from pipeline.training.finish import DivergedError
from pipeline.training.session import LocalSession
from pipeline.utils.errors import UserError

Make = Callable[..., Execution]


def test_a_run_leaves_its_files_and_no_checkpoints(spec: RunSpec, execution: Make) -> None:
    run = execution(checkpoint_iterations=2)
    assert loop.train(spec, run, LocalSession()) == "finished"
    assert {path.name for path in run.folder.iterdir()} >= {*DETERMINISTIC, WEIGHTS, "provenance.json", TIMING}
    assert not list(run.folder.rglob("*/state.json"))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    history = read_rows(run.folder / "history.csv", Evaluation)
    assert metrics["iterations"] == 6
    assert metrics["parameters"] == 1_030_362
    assert metrics["test_images"] == 360
    assert metrics["test_error"] == history[-1].test_error
    assert 0 <= metrics["test_error"] <= 100


def test_a_run_does_not_import_the_compiler(spec: RunSpec, execution: Make) -> None:
    """Neither an optimiser of `torch.optim` nor a setting shall: it costs every run two CPU-seconds."""
    program = """
import pickle, sys
from pipeline.training.loop import train
from pipeline.training.session import LocalSession
from pipeline.training.finish import DivergedError
train(*pickle.load(sys.stdin.buffer), LocalSession())
sys.exit("torch._dynamo" in sys.modules)
"""
    job = pickle.dumps((spec, execution()))
    assert subprocess.run([sys.executable, "-c", program], input=job, check=False).returncode == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_run_ends_bit_equal(spec: RunSpec, execution: Make, precision: str) -> None:
    spec = replace(spec, precision=precision)
    straight, broken = execution("straight"), execution("broken")
    assert loop.train(spec, straight, LocalSession()) == "finished"
    asked = iter([False, True] * 10)
    statuses = [loop.train(spec, broken, LocalSession(), should_stop=lambda: next(asked))]
    while statuses[-1] == "paused":
        statuses.append(loop.train(spec, broken, LocalSession(), should_stop=lambda: next(asked)))
    assert statuses == ["paused", "paused", "finished"]
    for name in (*DETERMINISTIC, WEIGHTS):
        assert (broken.folder / name).read_bytes() == (straight.folder / name).read_bytes(), name
    provenance = Provenance.read(broken.folder)
    assert provenance is not None
    assert [(s.from_iteration, s.to_iteration) for s in provenance.segments] == [(0, 2), (2, 4), (4, 6)]


def test_work_lost_since_the_last_checkpoint_is_done_again(
    spec: RunSpec, execution: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, killed = execution("straight"), execution("killed", checkpoint_iterations=4)
    loop.train(spec, straight, LocalSession())
    step = loop.Worker.step

    def dies(self: loop.Worker, iteration: int) -> None:
        if iteration == 5:
            raise KeyboardInterrupt
        step(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Worker, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            loop.train(spec, killed, LocalSession())
    assert loop.train(spec, killed, LocalSession()) == "finished"
    for name in (*DETERMINISTIC, WEIGHTS):
        assert (killed.folder / name).read_bytes() == (straight.folder / name).read_bytes(), name


def test_a_run_whose_time_is_up_pauses_with_a_checkpoint(spec: RunSpec, execution: Make) -> None:
    run = execution(stop_at=0.0)
    assert loop.train(spec, run, LocalSession()) == "paused"
    provenance = Provenance.read(run.folder)
    assert provenance is not None
    assert provenance.status == "paused"
    assert (run.folder / "checkpoints" / "000000001" / "state.json").exists()


def test_a_run_that_begins_again_before_a_damaged_checkpoint_goes_on_from_its_new_ones(
    spec: RunSpec, execution: Make
) -> None:
    run = execution(checkpoints=Checkpoints(keep=1))
    asked = iter([False, False, False, True, True, False, False, False, False, False])
    assert loop.train(spec, run, LocalSession(), should_stop=lambda: next(asked)) == "paused"
    next(run.folder.glob("checkpoints/000000004/model.safetensors")).write_bytes(b"cut")
    assert loop.train(spec, run, LocalSession(), should_stop=lambda: next(asked)) == "paused"
    assert [path.name for path in run.folder.glob("checkpoints/0*")] == ["000000001"]
    assert loop.train(spec, run, LocalSession(), should_stop=lambda: next(asked)) == "finished"


def test_a_last_checkpoint_that_cannot_be_written_keeps_no_run_from_its_end(
    spec: RunSpec, execution: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: state.Snapshot, run: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state.Snapshot, "write", full)
    run = execution(checkpoint_iterations=spec.protocol.iterations - 1)
    assert loop.train(spec, run, LocalSession()) == "finished"
    provenance = Provenance.read(run.folder)
    assert provenance is not None and provenance.status == "finished"


def test_a_run_that_was_killed_before_its_metrics_is_begun_and_ends(
    spec: RunSpec, execution: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Metrics, folder: Path) -> None:
        raise KeyboardInterrupt

    run = execution(spec.folder_name, checkpoint_iterations=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Metrics, "write", killed)
        loop.train(spec, run, LocalSession())
    assert runs.status(spec, run.folder.parent) == "begun"
    assert loop.train(spec, run, LocalSession()) == "finished"
    assert runs.status(spec, run.folder.parent) == "finished"


def test_a_batch_that_the_workers_cannot_share_is_refused(spec: RunSpec, execution: Make) -> None:
    session = LocalSession()
    session.world_size = 7
    with pytest.raises(UserError, match=r"attention56-s0: .*7 workers"):
        loop.train(spec, execution(), session)


def test_listeners_hear_of_every_evaluation_once(spec: RunSpec, execution: Make) -> None:
    heard: list[tuple[Evaluation, Timing]] = []
    run = execution()
    loop.train(spec, run, LocalSession(), on_evaluation=lambda row, timing: heard.append((row, timing)))
    assert [row for row, _ in heard] == read_rows(run.folder / "history.csv", Evaluation)
    assert [timing for _, timing in heard] == read_rows(run.folder / TIMING, Timing)


def test_the_error_is_that_of_predicting_every_test_image_once(spec: RunSpec, execution: Make, digits: Path) -> None:
    from models import load_trained
    from pipeline.data.arrays import load

    run = execution()
    loop.train(spec, run, LocalSession())
    arrays = load(data.prepared_folder(digits, "digits"))
    trained = load_trained(run.folder / WEIGHTS)
    assert trained.classes == arrays.classes
    assert torch.equal(trained.normalise.mean, torch.from_numpy(np.array(arrays.mean)))
    predicted = trained.predict(np.array(arrays.test_images)).argmax(1).numpy()
    wrong = int((predicted != arrays.test_labels).sum())
    assert json.loads((run.folder / "metrics.json").read_text())["test_error"] == pytest.approx(
        100 * wrong / 360, abs=0.3
    )


def test_the_checksum_in_the_metrics_is_that_of_the_network_alone(spec: RunSpec, execution: Make) -> None:
    from models.weights import network_sha256

    run = execution()
    loop.train(spec, run, LocalSession())
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["weights_sha256"] == network_sha256(run.folder / WEIGHTS)


def test_a_loss_that_is_no_number_ends_the_run(spec: RunSpec, execution: Make) -> None:
    wild = replace(spec, protocol=replace(spec.protocol, learning_rate=1e30))
    with pytest.raises(DivergedError, match=r"attention56-s0: the loss is not finite at iteration 6"):
        loop.train(wild, execution(), LocalSession())


def test_data_other_than_the_runs_are_refused_before_a_step(spec: RunSpec, execution: Make) -> None:
    foreign = replace(spec, data=replace(spec.data, checksum="0" * 64))
    with pytest.raises(UserError, match=r"checksum = .* is not '0000"):
        loop.train(foreign, execution(), LocalSession())


def test_global_random_state_stays_as_it_was(spec: RunSpec, execution: Make) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loop.train(spec, execution(), LocalSession())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_whose_masks_are_not_finite_at_its_end_has_diverged(
    spec: RunSpec, execution: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_finite(*_: object) -> dict[str, np.ndarray]:
        return {"s1m1_mask": np.array([[[np.inf]]], np.float16)}

    monkeypatch.setattr(finish, "attention_maps", not_finite)
    made = execution()
    with pytest.raises(DivergedError, match="attention56-s0: diverged, its responses or attention masks are not"):
        loop.train(spec, made, LocalSession())
    assert not (made.folder / "metrics.json").exists()
