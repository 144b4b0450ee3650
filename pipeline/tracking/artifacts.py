"""The files of a run as artifacts in MLflow, its attention masks as one image."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.arrays import Masks
from pipeline.runs.mask_figure import mask_figure
from pipeline.runs.records import CONFIG, HISTORY, MASKS, METRICS, RESPONSES, TIMING, WEIGHTS
from pipeline.utils.files import sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ARTIFACTS_TAG = "artifacts.sha256"
FILES = (CONFIG, METRICS, RESPONSES, HISTORY, TIMING, WEIGHTS)


def log_files(client: MlflowClient, run_id: str, folder: Path) -> dict[str, str]:
    """Log the small files of a run, its masks as an image, and its weights, unless they are there.

    Returns:
        the tag that holds their checksum, to be set when all else of the run is logged.
    """
    present = _files(folder)
    tag = artifacts_tag(folder)
    if has_files(client, client.get_run(run_id), folder, tag):
        return tag
    with tempfile.TemporaryDirectory() as scratch:
        for path in present:
            if path.name == MASKS:
                draw_masks(folder, Path(scratch) / _shown(path))
            else:
                (Path(scratch) / path.name).symlink_to(path.resolve())
        client.log_artifacts(run_id, scratch)
    return tag


def has_files(client: MlflowClient, run: Run, folder: Path, tag: Mapping[str, str]) -> bool:
    """Whether the files of a run folder, whose tag is that of `artifacts_tag`, are the artifacts of its run."""
    if not tag.items() <= run.data.tags.items():
        return False
    return {file.path for file in client.list_artifacts(run.info.run_id)} >= set(map(_shown, _files(folder)))


def artifacts_tag(folder: Path) -> dict[str, str]:
    """The tag with the checksum of the files of a run folder; it reads all of them."""
    content = "".join(f"{path.name} {sha256_file(path)}\n" for path in _files(folder))
    return {ARTIFACTS_TAG: hashlib.sha256(content.encode()).hexdigest()}


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in (*FILES, MASKS) if (folder / name).exists()]


def _shown(path: Path) -> str:
    return "masks.png" if path.name == MASKS else path.name


def draw_masks(folder: Path, target: Path) -> None:
    """Write a PNG from `masks.npz`: for each test image a row, with the image under the mask of each module."""
    read = Masks.read(folder)
    masks = {name.removesuffix("_mask"): maps for name, maps in read.maps.items() if _is_mask(name)}
    mask_figure(read.images, masks).save(target)


def _is_mask(name: str) -> bool:
    return name.endswith("_mask") and not name.endswith("_channel_mask")
