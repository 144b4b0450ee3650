"""A run's attention masks as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.arrays import Masks

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

TILE, GAP, HEADING = 64, 4, 14  # pixels


def draw_masks(folder: Path, target: Path) -> None:
    """Write a PNG of a run's masks: a row for each test image, with the image under each module's mask.

    A mask is shown by its own range: dark where it is lowest, untouched where it is highest.
    """
    from PIL import Image, ImageDraw

    read = Masks.read(folder)
    pictures = read.images
    masks = {name.removesuffix("_mask"): maps for name, maps in read.maps.items() if _is_mask(name)}
    step = TILE + GAP
    size = (GAP + step * (1 + len(masks)), HEADING + GAP + step * len(pictures))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(["image", *masks]):
        draw.text((GAP + step * column, GAP // 2), name, fill="black")
    for row, picture in enumerate(pictures):
        large = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.NEAREST)
        top = HEADING + GAP + step * row
        sheet.paste(large, (GAP, top))
        for column, mask in enumerate(masks.values(), start=1):
            sheet.paste(_under(large, mask[row]), (GAP + step * column, top))
    sheet.save(target)


def _is_mask(name: str) -> bool:
    return name.endswith("_mask") and not name.endswith("_channel_mask")


def _under(picture: Picture, mask: np.ndarray) -> Picture:
    import numpy as np
    from PIL import Image

    values = mask.astype(np.float32)
    spread = float(values.max() - values.min())
    shade = (values - values.min()) / spread if spread > 0 else np.ones_like(values)
    weight = Image.fromarray((255 * shade).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BILINEAR)
    light = np.asarray(weight, dtype=np.float32)[..., None] / 255
    return Image.fromarray((np.asarray(picture) * (0.15 + 0.85 * light)).astype(np.uint8))
