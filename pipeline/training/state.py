"""Checkpoints: folders of two safetensors files and a JSON file, each verified by checksum when read.

Random number generators need no place in them: every random number is a function of (seed, purpose, epoch).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.files import read_json, replace_folder, sha256_file, write_json
from pipeline.training.records import CHECKPOINTS, Evaluation, Position, Sums, Timing, row_from

logger = logging.getLogger(__name__)

MODEL, OPTIMISER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: tensors on the CPU, and the position."""

    model: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    position: Position


def momentum_buffers(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's momentum by parameter name; empty before the first step."""
    state = optimiser.state
    return {
        name: state[parameter]["momentum_buffer"]
        for name, parameter in model.named_parameters()
        if state.get(parameter, {}).get("momentum_buffer") is not None
    }


def save(run: Path, identity: str, model: nn.Module, optimiser: torch.optim.Optimizer, position: Position) -> Path:
    """Write a checkpoint of a run; it appears whole or not at all.

    Returns:
        its folder, ``<run>/checkpoints/<iteration>``.
    """
    folder = run / CHECKPOINTS / f"{position.iteration:09d}"
    with replace_folder(folder) as fresh:
        save_file(_on_cpu(model.state_dict()), fresh / MODEL)
        save_file(_on_cpu(momentum_buffers(model, optimiser)), fresh / OPTIMISER)
        checksums = {name: sha256_file(fresh / name) for name in (MODEL, OPTIMISER)}
        content = {"identity": identity, "files": checksums, "position": asdict(position)}
        write_json(fresh / STATE, {**content, "sha256": _checksum(content)})
    return folder


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}


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
            history=[row_from(Evaluation, row) for row in content["history"]],
            timing=[row_from(Timing, row) for row in content["timing"]],
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
    """The newest checkpoint that is whole and of this run; each one passed over is named in the log."""
    for folder in checkpoints(run):
        try:
            return read(folder, identity)
        except UserError as error:
            logger.warning("checkpoint passed over: %s", error)
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors into a model and its optimiser."""
    model.load_state_dict(checkpoint.model)
    for name, parameter in model.named_parameters():
        if name in checkpoint.momentum:
            buffer = torch.empty_like(parameter).copy_(checkpoint.momentum[name])
            optimiser.state[parameter]["momentum_buffer"] = buffer


def keep_newest(run: Path, count: int) -> None:
    """Delete all but the newest `count` checkpoints."""
    for folder in list(checkpoints(run))[count:]:
        shutil.rmtree(folder)
