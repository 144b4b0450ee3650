"""Trained networks, ready for images: weights, class names and normalisation from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.options import MOST_PIXELS, check_integer
from models.weights import load_model, read_weights


class Normalise(nn.Module):
    """Turns uint8 images [N, H, W, 3] or [N, 3, H, W] into what the network was trained on, float32 [N, 3, H, W].

    Pixels are scaled to [0, 1], then the mean is subtracted and the result divided by the standard deviation.

    Args:
        image_size: height and width, in pixels, of the images that the network was tested on.
        crop_pct: share of the shorter side of an image that the square crop in its centre takes before it is resized
            to `image_size` (timm's name for it).
        mean: mean of the training pixels scaled to [0, 1]: by pixel [H, W, 3], or by channel [3].
        std: their standard deviation by channel [3]; ones where training does not divide by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, crop_pct: float, mean: Any, std: Any) -> None:
        super().__init__()
        check_integer("image_size", image_size, 1, MOST_PIXELS)
        self.image_size, self.crop_pct = image_size, crop_pct
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))
        for key, value, shapes in (("mean", self.mean, [[3], [image_size, image_size, 3]]), ("std", self.std, [[3]])):
            if list(value.shape) not in shapes:
                raise ValueError(f"{key} has shape {list(value.shape)}, allowed is {' or '.join(map(str, shapes))}")
        if not self.mean.isfinite().all() or not (self.std.isfinite() & (self.std > 0)).all():
            raise ValueError("mean must be finite, and std finite and above 0")
        if not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct = {crop_pct!r}: must be above 0 and at most 1")

    def settings(self) -> dict[str, Any]:
        """Return the arguments of this module as JSON values, which give equal buffers again."""
        mean, std = self.mean.tolist(), self.std.tolist()
        return {"image_size": self.image_size, "crop_pct": self.crop_pct, "mean": mean, "std": std}

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.dim() != 4 or 3 not in (images.shape[1], images.shape[3]):
            found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise ValueError(f"images are {found}; needed are uint8 [N, H, W, 3] or [N, 3, H, W]")
        if images.shape[3] != 3:
            images = images.permute(0, 2, 3, 1)
        if self.mean.dim() == 3 and images.shape[1:] != self.mean.shape:
            height, width, size = *images.shape[1:3], self.image_size
            raise ValueError(f"images of {height}x{width} pixels do not fit the mean image of {size}x{size} pixels")
        return images.float().div(255.0).sub(self.mean).div(self.std).permute(0, 3, 1, 2)


class Trained(nn.Module):
    """A trained network with its normalisation: uint8 images [N, H, W, 3] or [N, 3, H, W] -> scores [N, num_classes].

    Attributes:
        network: the network, which takes normalised images.
        normalise: what turns uint8 images into normalised ones.
        classes: names of the classes, by label.
        name: name of the network in `models`.
    """

    def __init__(self, network: nn.Module, normalise: Normalise, classes: tuple[str, ...], name: str) -> None:
        super().__init__()
        self.network, self.normalise, self.classes, self.name = network, normalise, classes, name

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(self.normalise(images))
        return scores

    @torch.no_grad()
    def predict(self, images: Any) -> Tensor:
        """Return the probabilities of the classes, float32 [N, num_classes], on the device of the network.

        Args:
            images: uint8 tensor or array, [N, H, W, 3] or [N, 3, H, W]; one image may lack N.

        Raises:
            ValueError: for images of another type or shape, or of a size that the network does not take.
        """
        batch = images if isinstance(images, Tensor) else torch.tensor(images)  # a copy: Pillow's arrays are read-only
        batch = batch.to(self.normalise.mean.device)
        return self.forward(batch[None] if batch.dim() == 3 else batch).softmax(dim=1)


def load_trained(path: str | Path, device: str | torch.device = "cpu") -> Trained:
    """Load a trained network with its class names and its normalisation, in evaluation mode.

    Args:
        path: `weights.safetensors` of a run, or `model.safetensors` of a folder for the Hugging Face hub.
        device: where the network is.

    Raises:
        ValueError: in one line, for a file that is missing, damaged or not from `models.weights.save_weights`, or that
            has no class names and normalisation because an earlier version wrote it.
    """
    network = load_model(path)
    configuration, _ = read_weights(path)
    if "normalisation" not in configuration:
        raise ValueError(
            f"{path}: carries no class names and no normalisation (an earlier version wrote it);"
            " models.weights.load_model loads the network without them"
        )
    try:
        normalise, classes = Normalise(**configuration["normalisation"]), tuple(configuration["classes"])
        if len(classes) != configuration["num_classes"]:
            raise ValueError(f"{len(classes)} class names for {configuration['num_classes']} classes")
        if len({name for name in classes if isinstance(name, str) and name.isprintable()}) != len(classes):
            raise ValueError("class names must be different texts without control characters")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: its class names or its normalisation are damaged ({error})") from None
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise ValueError(f"{path}: its weights are not finite; the run has diverged")
    return Trained(network, normalise, classes, configuration["name"]).to(device).eval()
