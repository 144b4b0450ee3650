"""The files of a run as artifacts in MLflow, its attention masks as one image."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.records import CONFIG, HISTORY, MASKS, METRICS, RESPONSES, TIMING, WEIGHTS
from pipeline.utils.files import sha256_file

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from PIL.Image import Image as PilImage

ARTIFACTS_TAG = "artifacts.sha256"
FILES = (CONFIG, METRICS, RESPONSES, HISTORY, TIMING, WEIGHTS)
TILE, GAP, HEADING = 64, 4, 14  # pixels


def log_files(client: MlflowClient, run_id: str, folder: Path) -> dict[str, str]:
    """Log the small files of a run, its masks as an image, and its weights, unless they are there.

    Returns:
        the tag that holds their checksum, to be set when all else of the run is logged.
    """
    present = [folder / name for name in (*FILES, MASKS) if (folder / name).exists()]
    content = hashlib.sha256("".join(f"{path.name} {sha256_file(path)}\n" for path in present).encode()).hexdigest()
    tag = {ARTIFACTS_TAG: content}
    logged = {file.path for file in client.list_artifacts(run_id)}
    if client.get_run(run_id).data.tags.get(ARTIFACTS_TAG) == content and logged >= {_shown(path) for path in present}:
        return tag
    with tempfile.TemporaryDirectory() as scratch:
        for path in present:
            if path.name == MASKS:
                draw_masks(path, Path(scratch) / _shown(path))
            else:
                (Path(scratch) / path.name).symlink_to(path.resolve())
        client.log_artifacts(run_id, scratch)
    return tag


def _shown(path: Path) -> str:
    return "masks.png" if path.name == MASKS else path.name


def draw_masks(source: Path, target: Path) -> None:
    """Write a PNG from `masks.npz`: for each test image a row, the image itself and then under each mask.

    A mask is shown by its own range: dark where it is lowest, untouched where it is highest.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    with np.load(source, allow_pickle=False) as arrays:
        images = arrays["images"]
        masks = {name.removesuffix("_mask"): arrays[name] for name in arrays.files if _is_mask(name)}
    step = TILE + GAP
    size = (GAP + step * (1 + len(masks)), HEADING + GAP + step * len(images))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(["image", *masks]):
        draw.text((GAP + step * column, GAP // 2), name, fill="black")
    for row, image in enumerate(images):
        large = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST)
        top = HEADING + GAP + step * row
        sheet.paste(large, (GAP, top))
        for column, mask in enumerate(masks.values(), start=1):
            sheet.paste(_under(large, mask[row]), (GAP + step * column, top))
    sheet.save(target)


def _is_mask(name: str) -> bool:
    return name.endswith("_mask") and not name.endswith("_channel_mask")


def _under(image: PilImage, mask: np.ndarray) -> PilImage:
    import numpy as np
    from PIL import Image

    values = mask.astype(np.float32)
    spread = float(values.max() - values.min())
    shade = (values - values.min()) / spread if spread > 0 else np.ones_like(values)
    weight = Image.fromarray((255 * shade).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BILINEAR)
    light = np.asarray(weight, dtype=np.float32)[..., None] / 255
    return Image.fromarray((np.asarray(image) * (0.15 + 0.85 * light)).astype(np.uint8))
