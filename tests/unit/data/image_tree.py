"""A small tree of class folders with images of several sizes, as ImageNet's is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.imagenet import ImageNet

CLASSES = ("n00000001", "n00000002", "n00000003")
IMAGES = {"train": 12, "val": 6}
LITTER_FILES = (
    *("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "_desktop.ini", "Picasa.ini", ".picasa.ini"),
    *(".DS_Store", "._x.JPEG", "._0001.png", "x.JPEG~", "0001.png.tmp", "x.JPEG.part", "unpack.sh"),
    *("n00000001.tar", "ILSVRC2012_img_val.TAR", "images.tar.xz"),
)
LITTER_FOLDERS = (
    *(".ipynb_checkpoints", "__pycache__", "__MACOSX", "lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN"),
    "System Volume Information",
)


class SmallImageNet(ImageNet):
    class_count = len(CLASSES)
    images = IMAGES


def encode(seed: int, height: int, width: int, mode: str = "RGB", image_format: str = "JPEG", **options: Any) -> bytes:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def write_tree(folder: Path) -> Path:
    """Four training and two validation images of each class, named as ImageNet's are."""
    number = 0
    for label, name in enumerate(CLASSES):
        for k in range(4):
            path = folder / "train" / name / f"{name}_{k}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(10 * label + k, 40 + 7 * k, 60 - 5 * label))
        for _ in range(2):
            number += 1
            path = folder / "val" / name / f"ILSVRC2012_val_{number:08d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(100 + number, 50, 50 + number))
    return folder
