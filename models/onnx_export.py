"""Networks as ONNX files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import nn

from models.options import MOST_PIXELS, check_integer
from models.trained import Trained
from models.weights import complete_file


def export_onnx(model: nn.Module, path: str | Path, image_size: int) -> None:
    """Write a network in evaluation mode as one ONNX file, with an input "images" and an output "scores".

    A `Trained` takes uint8 images [N, image_size, image_size, 3], and its class names are in the file's metadata, as
    JSON. Any other network takes normalised float32 images [N, 3, image_size, image_size]. The scores are
    [N, num_classes], and N is free. The file appears under its name when it is complete.

    Args:
        model: the network; it may be compiled. It is not changed.
        path: the file to write.
        image_size: height and width of the images in pixels.

    Raises:
        ValueError: for images that are too small for the network, or that do not fit its mean image.
        ImportError: without the packages onnx and onnxscript.
    """
    check_integer("image_size", image_size, 1, MOST_PIXELS)
    bare = getattr(model, "_orig_mod", model)  # the network that torch.compile wraps
    plain = copy.deepcopy(bare).to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval()
    if isinstance(plain, Trained):
        example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    else:
        example = torch.zeros(2, 3, image_size, image_size)
    with torch.no_grad():
        plain(example)  # raises the network's own ValueError, which the exporter would wrap
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
    if isinstance(plain, Trained):
        program.model.metadata_props["classes"] = json.dumps(plain.classes)
    with complete_file(path) as temporary:
        program.save(temporary, external_data=False)
