from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from models import create_model
from pipeline.runs.records import Evaluation, Position, Sums, Timing
from pipeline.training import state
from pipeline.training.optimiser import SGD
from pipeline.utils.errors import UserError
from tests.plans import make_protocol

PROTOCOL = make_protocol(iterations=9, batch_size=2, weight_decay=0.0, padding=0)


def network() -> tuple[nn.Module, SGD]:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    optimiser = SGD(model, PROTOCOL)
    model(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimiser.step(0.1)
    return model, optimiser


def position(iteration: int) -> Position:
    return Position(
        iteration=iteration,
        seconds=1.5,
        sums=Sums(1, 2, 3, 0),
        history=[Evaluation(1.0, 3, 0.1, 0.123456789012345, 10.0, 0.2, 11.1)],
        timing=[Timing(1.0, 3, 1.0, 100.0)],
    )


def save(run: Path, iteration: int) -> tuple[nn.Module, SGD]:
    model, optimiser = network()
    state.Snapshot.take("abc", model, optimiser, position(iteration)).write(run)
    return model, optimiser


def test_a_checkpoint_gives_back_weights_momentum_and_position(tmp_path: Path) -> None:
    model, optimiser = save(tmp_path, 5)
    checkpoint = state.read_latest(tmp_path, "abc")
    assert checkpoint is not None
    assert checkpoint.position == position(5)
    fresh, fresh_optimiser = network()
    state.restore(checkpoint, fresh, fresh_optimiser)
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)
    before, after = optimiser.momentum, fresh_optimiser.momentum
    assert before.keys() == after.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("file", [state.MODEL, state.OPTIMISER, state.STATE])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    save(tmp_path, 5)
    save(tmp_path, 9)
    path = tmp_path / "checkpoints" / "000000009" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with caplog.at_level(logging.WARNING):
        checkpoint = state.read_latest(tmp_path, "abc")
    assert checkpoint is not None
    assert checkpoint.position.iteration == 5
    assert "000000009" in caplog.text


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    with pytest.raises(UserError, match="checkpoint of another run"):
        state.read(tmp_path / "checkpoints" / "000000005", "other")
    assert state.read_latest(tmp_path, "other") is None


def test_files_of_the_largest_network_of_table_3_stay_below_16_mb(tmp_path: Path) -> None:
    model = create_model("cifar_attention164", 10)
    optimiser = SGD(model, PROTOCOL)
    optimiser.momentum = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    folder = state.Snapshot.take("abc", model, optimiser, position(3)).write(tmp_path)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sorted(sizes) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert 13e6 < sizes["optimizer.safetensors"] < sizes["model.safetensors"] < 16e6


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for iteration in (1, 20, 3):
        save(tmp_path, iteration)
    state.keep_newest(tmp_path, 2)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["000000020", "000000003"]


def test_a_checkpoint_that_could_not_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "write_atomic", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 5)
    assert list(tmp_path.rglob("*.safetensors")) == []
    assert list(state.checkpoints(tmp_path)) == []


def test_a_checkpoint_is_of_the_moment_it_was_taken_whatever_training_does_while_it_is_written(tmp_path: Path) -> None:
    model, optimiser = network()
    weight = model.state_dict()["0.weight"].clone()
    snapshot = state.Snapshot.take("abc", model, optimiser, position(5))
    with torch.no_grad():
        for tensor in (*model.parameters(), *optimiser.momentum.values()):
            tensor.zero_()
    snapshot.write(tmp_path)
    checkpoint = state.read_latest(tmp_path, "abc")
    assert checkpoint is not None
    assert torch.equal(checkpoint.model["0.weight"], weight)
    assert checkpoint.momentum["0.weight"].any()


def test_an_error_of_the_writing_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    saver = state.Saver(tmp_path, keep=2)
    saver.save(state.Snapshot.take("abc", *network(), position(5)))
    saver.wait()
    monkeypatch.setattr(state, "write_atomic", full_disk)
    saver.save(state.Snapshot.take("abc", *network(), position(7)))
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    assert [path.name for path in state.checkpoints(tmp_path)] == ["000000005"]
    saver.wait()


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 5)
    leftover = tmp_path / "checkpoints" / ".000000007.host-1-00.tmp"
    leftover.mkdir()
    state.remove_unfinished(tmp_path)
    assert not leftover.exists()
    assert [path.name for path in state.checkpoints(tmp_path)] == ["000000005"]


def test_checkpoints_of_no_use_are_set_aside_and_new_ones_stay(tmp_path: Path) -> None:
    for iteration in (900, 1000):
        save(tmp_path, iteration)
        (tmp_path / "checkpoints" / f"{iteration:09d}" / state.MODEL).write_bytes(b"cut")
    assert state.read_latest(tmp_path, "abc") is None
    state.set_aside(tmp_path, 0)
    saver = state.Saver(tmp_path, keep=2)
    model, optimiser = network()
    for iteration in (10, 20, 30):
        saver.save(state.Snapshot.take("abc", model, optimiser, position(iteration)))
    saver.wait()
    assert [path.name for path in state.checkpoints(tmp_path)] == ["000000030", "000000020"]
    assert len(list((tmp_path / "checkpoints").glob("unusable-*"))) == 2
