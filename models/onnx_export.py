"""Networks as ONNX files."""

from __future__ import annotations

import copy
import os
import secrets
from pathlib import Path

import torch
from torch import nn


def export_onnx(model: nn.Module, path: str | Path, image_size: int) -> None:
    """Write a network for evaluation: "images" float32 [N, 3, image_size, image_size] -> "scores" [N, num_classes].

    N is free. The file is whole in itself and appears under its name only when it is written. Needs the packages onnx
    and onnxscript.

    Raises ValueError for images too small for the network.
    """
    path = Path(path)
    bare = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    plain = copy.deepcopy(bare).to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval()
    example = torch.zeros(2, 3, image_size, image_size)
    with torch.no_grad():
        plain(example)  # a mistake is raised here, not from within the exporter
    program = torch.onnx.export(
        plain,
        (example,),
        input_names=["images"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        program.save(temporary, external_data=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
