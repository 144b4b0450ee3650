"""Predictions of a trained network for image files, with its attention masks drawn over them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.mask_figure import mask_figure
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models import Trained

TILE = 128  # least side of a drawn image in pixels


def predict(weights: Path, images: Sequence[Path], out: Path | None = None, top: int = 5) -> Iterator[str]:
    """Classify image files and draw the attention masks over them.

    All files are read before the first is classified. An image of any size is cut and resized as test images are.

    Args:
        weights: the file of a trained network.
        images: image files of any format that Pillow reads.
        out: folder of the drawn masks, `<image>-masks.png`; beside each image if None.
        top: how many classes are printed.

    Yields:
        a line for each image: its `top` classes with their probabilities in percent, and where the masks are drawn.

    Raises:
        UserError: for weights without class names and normalisation, a file that is not an image, two images whose
            masks would have the same name, or a folder that cannot be written.
    """
    from models import load_trained
    from models.attention import attention_outputs

    targets = [(out or path.parent) / f"{path.stem}-masks.png" for path in images]
    target, count = Counter(targets).most_common(1)[0]
    if count > 1:
        raise UserError(f"{target}: would hold the masks of {count} images; predict them with different --out folders")
    try:
        trained = load_trained(weights)
        squares = [read_square(path, trained) for path in images]
        for path, square, target in zip(images, squares, targets, strict=True):
            with attention_outputs(trained.network, "mask") as masks:
                (probabilities,) = trained.predict(square)
            values, labels = probabilities.topk(min(top, len(trained.classes)))
            found = zip(labels.tolist(), values.tolist(), strict=True)
            line = f"{path}: " + ", ".join(f"{trained.classes[label]} {100 * value:.1f} %" for label, value in found)
            if masks:
                means = {key.removesuffix("/mask"): mask.mean(1).numpy() for key, mask in masks.items()}
                png = io.BytesIO()
                mask_figure(square[None], means, max(TILE, len(square))).save(png, "PNG")
                write_atomic(target, png.getvalue())
                line += f"; masks: {target}"
            yield line
    except ValueError as error:
        raise UserError(str(error)) from None


def read_square(path: Path, trained: Trained) -> NDArray[np.uint8]:
    """Read an image as the network was tested: the square in its centre, resized; uint8 [image_size, image_size, 3].

    Raises:
        UserError: for a file that is missing or is not an image.
    """
    import numpy as np
    from PIL import Image, ImageOps

    size, crop_pct = trained.normalise.image_size, trained.normalise.crop_pct
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # decoders raise errors of any kind for damaged files
        raise UserError(f"{path}: not an image that can be read ({one_line(error)})") from None
    side = max(1, round(min(image.size) * crop_pct))
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))  # resizing with a box mixes in what is around it
    return np.array(square.resize((size, size), Image.Resampling.BILINEAR))
