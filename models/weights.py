"""Weights as safetensors files that also hold what is needed to build and to use the network.

The tensors are the state dict of the network and nothing else, so every safetensors reader can load them. The metadata
has one entry, `KEY`, in JSON: name, num_classes and options of the network, and for a trained one the names of its
classes and the normalisation of its images. (With several entries their order in the file would not be fixed.)
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
ARCHITECTURE: Final[tuple[str, ...]] = ("name", "num_classes", "options")
"""The part of the configuration that builds the network."""


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    name: str,
    num_classes: int,
    options: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    normalisation: Mapping[str, Any] | None = None,
) -> str:
    """Write parameters and buffers of a network, and what is needed to build and to use it.

    Equal arguments give equal bytes. The file appears under its name when it is complete.

    Args:
        model: a network that `create_model(name, num_classes, **options)` made; it may be compiled.
        path: the file to write.
        name: name of the network.
        num_classes: its number of classes.
        options: its other arguments of `create_model`, where they differ from the defaults.
        classes: names of the classes, by label.
        normalisation: see `models.trained.Normalise.settings`.

    Returns:
        the checksum that `network_sha256` computes.
    """
    bare = getattr(model, "_orig_mod", model)  # the network that torch.compile wraps
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in bare.state_dict().items()}
    configuration: dict[str, Any] = {"name": name, "num_classes": num_classes, "options": dict(options or {})}
    use = {} if normalisation is None else {"classes": list(classes), "normalisation": dict(normalisation)}
    data = _serialise(tensors, configuration | use)
    with complete_file(path) as temporary:
        temporary.write_bytes(data)
    return hashlib.sha256(_serialise(tensors, configuration) if use else data).hexdigest()


def network_sha256(path: str | Path) -> str:
    """Return the SHA-256, in hex, of a file's network: of the file as it is without classes and normalisation.

    It depends on the architecture and the weights only. So the runs that were published before files had class names
    and normalisation keep their checksums, and a run that is trained again today has the same one.

    Raises:
        ValueError: in one line, for a file that is missing, damaged or not from `save_weights`.
    """
    return _sha256(*read_weights(path))


def load_model(path: str | Path, *, name: str | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """Load a network, with its weights, from a file that `save_weights` wrote.

    The network takes normalised images; `models.load_trained` loads it together with its normalisation.

    Args:
        path: the file.
        name: the network that the file must hold; any if None.
        device: where the network is.

    Raises:
        ValueError: in one line, for a file that is missing, damaged, not from `save_weights`, or of another network.
    """
    configuration, tensors = read_weights(path)
    try:
        found = configuration["name"]
        model = create_model(found, configuration["num_classes"], device="meta", **configuration["options"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its configuration does not describe a network of this package ({error})") from None
    if name is not None and name != found:
        raise ValueError(f"{path}: holds {found}, not {name}")
    expected, found_forms = _forms(model.state_dict()), _forms(tensors)
    wrong = sorted(key for key in expected.keys() | tensors.keys() if expected.get(key) != found_forms.get(key))
    if wrong:
        raise ValueError(f"{path}: {len(wrong)} of its tensors do not fit {found}, such as {wrong[0]}")
    model.load_state_dict(tensors, assign=True)
    return model.to(device)


def _forms(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {key: (tensor.shape, tensor.dtype) for key, tensor in tensors.items()}


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return configuration and tensors of a file that `save_weights` wrote.

    Raises:
        ValueError: in one line, for a file that is missing, damaged or not from `save_weights`.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would keep us waiting
            raise OSError("it is not a regular file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a complete safetensors file ({reason})") from None
    try:
        configuration = json.loads(metadata[KEY])
    except (KeyError, ValueError, RecursionError):
        configuration = None
    if not isinstance(configuration, dict):
        raise ValueError(f"{path}: does not name its network; it was not written by save_weights")
    _verify(path, configuration, tensors)
    return configuration, tensors


def _verify(path: Path, configuration: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are not those of the finished run in whose folder they lie."""
    for record in (path.with_name(name) for name in RECORDS):
        try:
            if record.exists() and not record.is_file():
                raise OSError("not a regular file")
            content = json.loads(record.read_bytes())
            expected = content["files"].get(path.name) if "files" in content else content["weights_sha256"]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{record}: damaged, so the weights beside it cannot be verified") from None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if expected not in (None, found) and ("files" in content or expected != _sha256(configuration, tensors)):
            raise ValueError(f"{path}: damaged: its SHA-256 is {found}, in {record.name} it is {expected}")


def _sha256(configuration: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    architecture = {key: configuration[key] for key in ARCHITECTURE if key in configuration}
    return hashlib.sha256(_serialise(tensors, architecture)).hexdigest()


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path that takes the name `path` when the block ends; after an error nothing is left."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename != str(temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # the name that the user knows
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _serialise(tensors: Mapping[str, torch.Tensor], configuration: Mapping[str, Any]) -> bytes:
    data: bytes = save(dict(tensors), {KEY: json.dumps(configuration, sort_keys=True)})
    return data
