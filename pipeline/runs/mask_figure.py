"""Attention masks drawn over images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

GAP, HEADING = 4, 14  # pixels


def mask_figure(images: NDArray[np.uint8], masks: Mapping[str, NDArray[Any]], tile: int = 64) -> Image:
    """Draw a row for each image: the image, then the image under the mask of each attention module.

    A mask is drawn on its own scale: dark where it is lowest, the untouched image where it is highest.

    Args:
        images: uint8 [N, H, W, 3].
        masks: masks [N, h, w] by module.
        tile: side of each drawn image in pixels.
    """
    from PIL import Image, ImageDraw

    step = tile + GAP
    figure = Image.new("RGB", (GAP + step * (1 + len(masks)), HEADING + GAP + step * len(images)), "white")
    draw = ImageDraw.Draw(figure)
    for column, name in enumerate(["image", *masks]):
        draw.text((GAP + step * column, GAP // 2), name, fill="black")
    for row, image in enumerate(images):
        large = Image.fromarray(image).resize((tile, tile), Image.Resampling.NEAREST)
        top = HEADING + GAP + step * row
        figure.paste(large, (GAP, top))
        for column, mask in enumerate(masks.values(), start=1):
            figure.paste(_under(large, mask[row]), (GAP + step * column, top))
    return figure


def _under(image: Image, mask: NDArray[Any]) -> Image:
    import numpy as np
    from PIL import Image

    values = mask.astype(np.float32)
    spread = float(values.max() - values.min())
    shade = (values - values.min()) / spread if spread > 0 else np.ones_like(values)
    weight = Image.fromarray((255 * shade).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    light = np.asarray(weight, dtype=np.float32)[..., None] / 255
    return Image.fromarray((np.asarray(image) * (0.15 + 0.85 * light)).astype(np.uint8))
