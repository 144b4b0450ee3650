"""Checkpoints: folders of two safetensors files and a JSON file, each verified by checksum when read.

Random number generators need no place in them: every random number is a function of (seed, purpose, epoch).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from pipeline.runs.records import CHECKPOINTS, STATE, Evaluation, Position, Sums, Timing
from pipeline.training.optimiser import SGD
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, replace_folder, sha256_file, write_atomic, write_json

logger = logging.getLogger(__name__)

MODEL, OPTIMISER = "model.safetensors", "optimizer.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: tensors on the CPU, and the position."""

    model: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    position: Position


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment, in memory of its own: training may go on while it is written."""

    identity: str
    iteration: int
    files: Mapping[str, Mapping[str, Tensor]]
    position: Mapping[str, Any]

    @classmethod
    def take(cls, identity: str, model: nn.Module, optimiser: SGD, position: Position) -> Snapshot:
        """Copy everything that changes with the next step."""
        files = {MODEL: _copies(model.state_dict()), OPTIMISER: _copies(optimiser.momentum)}
        return cls(identity, position.iteration, files, asdict(position))

    def write(self, run: Path) -> Path:
        """Write it as a checkpoint of a run; it appears complete or not at all.

        Returns:
            its folder, ``<run>/checkpoints/<iteration>``.
        """
        folder = run / CHECKPOINTS / f"{self.iteration:09d}"
        with replace_folder(folder, (*self.files, STATE)) as fresh:
            checksums = {}
            for name, tensors in self.files.items():
                data = serialise(dict(tensors))
                checksums[name] = hashlib.sha256(data).hexdigest()
                write_atomic(fresh / name, data)
            content = {"identity": self.identity, "files": checksums, "position": self.position}
            write_json(fresh / STATE, {**content, "sha256": _checksum(content)})
        return folder


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Saver:
    """Writes the checkpoints of a run, one after the other, while training goes on.

    An error in writing one is raised by whatever is called next.

    Args:
        run: the run's folder.
        keep: how many checkpoints stay.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run, self.keep = run, keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write; waits for the one before, so that at most one is in memory."""
        self.wait()
        self._writing = self._pool.submit(self._write, snapshot)

    def wait(self) -> None:
        """Return once everything is written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, snapshot: Snapshot) -> None:
        snapshot.write(self.run)
        keep_newest(self.run, self.keep)


def read(folder: Path, identity: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: if it is damaged, or belongs to a run with another identity.
    """
    state = read_json(folder / STATE)
    try:
        if state.pop("sha256") != _checksum(state):
            raise UserError(f"{folder / STATE}: damaged (checksum differs)")
        if state["identity"] != identity:
            raise UserError(f"{folder}: checkpoint of another run (identity {state['identity']!r}, not {identity!r})")
        for name, checksum in state["files"].items():
            if not (folder / name).exists() or sha256_file(folder / name) != checksum:
                raise UserError(f"{folder / name}: damaged (checksum differs)")
        content = state["position"]
        position = Position(
            iteration=int(content["iteration"]),
            seconds=float(content["seconds"]),
            sums=Sums(**content["sums"]),
            history=[Evaluation(**row) for row in content["history"]],
            timing=[Timing(**row) for row in content["timing"]],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / STATE}: not the state of a run ({error})") from None
    return Checkpoint(load_file(folder / MODEL), load_file(folder / OPTIMISER), position)


def checkpoints(run: Path) -> Iterator[Path]:
    """The checkpoint folders of a run, newest first."""
    folder = run / CHECKPOINTS
    if folder.is_dir():
        yield from sorted((p for p in folder.iterdir() if p.name.isdecimal()), reverse=True)


def read_latest(run: Path, identity: str) -> Checkpoint | None:
    """The newest complete checkpoint of this run; each one passed over is named in the log."""
    for folder in checkpoints(run):
        try:
            return read(folder, identity)
        except UserError as error:
            logger.warning("checkpoint passed over: %s", error)
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimiser: SGD) -> None:
    """Put a checkpoint's tensors into a model and its optimiser."""
    model.load_state_dict(checkpoint.model)
    optimiser.momentum = {
        name: torch.empty_like(optimiser.parameters[name]).copy_(buffer) for name, buffer in checkpoint.momentum.items()
    }


def keep_newest(run: Path, count: int) -> None:
    """Delete all but the newest `count` checkpoints."""
    for folder in list(checkpoints(run))[count:]:
        shutil.rmtree(folder)


def set_aside(run: Path, iteration: int) -> None:
    """Rename the checkpoints beyond the iteration that a run goes on from, none of which could be used.

    Left where they are they would count as its newest, and every new one would be deleted as too old.
    """
    for folder in checkpoints(run):
        if int(folder.name) > iteration:
            target = folder.with_name(f"unusable-{folder.name}")
            shutil.rmtree(target, ignore_errors=True)
            logger.warning("checkpoint set aside: %s", folder.rename(target))


def remove_unfinished(run: Path) -> None:
    """Delete what a killed process has left of checkpoints that it was writing."""
    for leftover in (run / CHECKPOINTS).glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
