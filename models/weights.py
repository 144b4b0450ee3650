"""Weights as safetensors, with the network's configuration in the file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from models.registry import create_model

RECORDS: Final = ("checksums.json", "metrics.json")
"""Files of a finished run that have the SHA-256 of its weights, which lie beside them."""
KEY: Final = "network"
"""The file's one metadata entry, in JSON: name, num_classes, options. (With several their order would not be fixed.)"""


def save_weights(
    model: nn.Module, path: str | Path, *, name: str, num_classes: int, options: Mapping[str, Any] | None = None
) -> None:
    """Write parameters and buffers of a network that `create_model(name, num_classes, **options)` made.

    Equal weights give equal bytes. The file appears under its name only when it is whole.
    """
    path = Path(path)
    configuration = {"name": name, "num_classes": num_classes, "options": dict(options or {})}
    bare = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in bare.state_dict().items()}
    data = save(tensors, {KEY: json.dumps(configuration, sort_keys=True)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_model(path: str | Path, *, name: str | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a file that `save_weights` wrote, with its weights.

    name: where given, the network that the file has to hold.

    Raises ValueError, in one line, for a file that is missing, damaged, foreign, or of another network.
    """
    configuration, tensors = _read(Path(path))
    try:
        found = configuration["name"]
        model = create_model(found, configuration["num_classes"], device="meta", **configuration["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its configuration is not that of a network here ({error})") from None
    if name is not None and name != found:
        raise ValueError(f"{path}: holds {found}, not {name}")
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    wrong = sorted(
        key for key in expected.keys() | tensors.keys() if key not in tensors or expected.get(key) != tensors[key].shape
    )
    if wrong:
        raise ValueError(f"{path}: {len(wrong)} of its tensors do not fit {found}, such as {wrong[0]}")
    model.load_state_dict(tensors, assign=True)
    return model.to(device)


def read_configuration(path: str | Path) -> dict[str, Any]:
    """What a file that `save_weights` wrote says of its network: name, num_classes, options.

    Raises ValueError, in one line, for a file that is missing, damaged or foreign.
    """
    return _read(Path(path))[0]


def _verify(path: Path) -> None:
    """Refuse weights that are not those of the finished run in whose folder they lie."""
    for record in (path.with_name(name) for name in RECORDS):
        try:
            content = json.loads(record.read_bytes())
            expected = content["files"].get(path.name) if "files" in content else content["weights_sha256"]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{record}: damaged, so the weights beside it cannot be verified") from None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if expected not in (None, found):
            raise ValueError(f"{path}: damaged: its SHA-256 is {found}, in {record.name} it is {expected}")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        _verify(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a whole safetensors file ({reason})") from None
    try:
        configuration = json.loads(metadata[KEY])
    except (KeyError, ValueError):
        raise ValueError(f"{path}: names no network of its own; it was not written by save_weights") from None
    if not isinstance(configuration, dict):
        raise ValueError(f"{path}: names no network of its own; it was not written by save_weights")
    return configuration, tensors
