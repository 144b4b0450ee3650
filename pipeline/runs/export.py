"""Trained networks as ONNX files, and as folders for the Hugging Face hub."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from models import find_network
from models.options import MOST_PIXELS, check_integer
from pipeline.runs.finished import read_finished
from pipeline.runs.records import CONFIG, METRICS, WEIGHTS
from pipeline.runs.spec import RunSpec
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json, replace_folder, write_json

HUB_WEIGHTS = "model.safetensors"
HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "imagenet": "ILSVRC/imagenet-1k"}
"""Data sets of this project by their names on the hub; the others are not there."""


def export_onnx(weights: Path, target: Path, image_size: int | None = None, normalised: bool = True) -> str:
    """Write a trained network as ONNX and return a description of its input and output.

    Args:
        weights: the file of the network's weights.
        target: the file to write.
        image_size: height and width in pixels; None for that of the tests, or of the run, or of the network.
        normalised: whether the network takes uint8 images and normalises them itself; float images otherwise.

    Raises:
        UserError: when a package is missing, the weights cannot be used, the images do not fit the network, or there is
            no folder for the file.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx: needs {' and '.join(missing)}; python -m pip install {' '.join(missing)}")
    if not target.parent.is_dir():
        raise UserError(f"--onnx {target}: there is no folder {target.parent}")

    from models import load_trained, onnx_export
    from models.weights import load_model, read_weights

    try:
        configuration, _ = read_weights(weights)
        name, classes = configuration.get("name", ""), configuration.get("num_classes")
        if normalised and "normalisation" not in configuration:
            raise UserError(
                f"{weights}: carries no normalisation (an earlier version wrote it); --float-images exports the network"
                " alone"
            )
        if normalised:
            trained = load_trained(weights)
            size = image_size or trained.normalise.image_size
            onnx_export.export_onnx(trained, target, size)
            images = f"uint8 images [N, {size}, {size}, 3]"
        else:
            model = load_model(weights)
            size = image_size or _trained_size(weights) or find_network(name).image_size
            onnx_export.export_onnx(model, target, size)
            images = f"float images [N, 3, {size}, {size}] normalised as in training"
    except ValueError as error:
        raise UserError(str(error)) from None
    reading = find_network(name).our_reading
    return f"{name}, {images} -> scores [N, {classes}]{f'; our reading: {reading}' if reading else ''}"


def weights_in(folder: Path) -> Path:
    """Return the weights in a run's folder; UserError when there are none."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS}: no such file; only a finished run of the store has its weights")
    return folder / WEIGHTS


def _trained_size(weights: Path) -> int | None:
    """Return the image size of the run that the weights belong to; None without a run's configuration beside them."""
    config = weights.with_name(CONFIG)
    if not config.is_file():
        return None
    try:
        size = read_json(config)["data"]["image_size"]
        check_integer("image_size", size, 1, MOST_PIXELS)
        return int(size)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{config}: not a run's configuration; say --image-size") from None


def export_hub(weights: Path, target: Path) -> None:
    """Write a folder that `huggingface_hub.upload_folder` can upload: weights, config.json and the model card.

    Args:
        weights: the weights in the folder of a finished run.
        target: the folder to write; it must not exist, or be empty.

    Raises:
        UserError: when the weights are not those of a finished run, carry no class names and normalisation, or there
            is something in the folder.
    """
    from models import load_trained

    run = weights.parent
    if not all((run / name).is_file() for name in (CONFIG, METRICS)):
        raise UserError(f"--hub: {run} is not the folder of a finished run, which the model card describes")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"--hub {target}: exists and is not an empty folder")
    try:
        trained = load_trained(weights)
    except ValueError as error:
        raise UserError(str(error)) from None
    finished = read_finished(run)
    spec, provenance, test_error = finished.spec, finished.provenance, finished.metrics.test_error
    commit = provenance.segments[-1].commit if provenance and provenance.segments else None
    size = trained.normalise.image_size
    with replace_folder(target) as fresh:
        shutil.copyfile(weights, fresh / HUB_WEIGHTS)
        config = {
            "architecture": trained.name,
            "num_classes": len(trained.classes),
            "options": dict(spec.network.options),
            "label_names": list(trained.classes),
            "input_size": [3, size, size],
            "crop_pct": trained.normalise.crop_pct,
            "run": spec.to_json(),
        }
        write_json(fresh / "config.json", config)
        (fresh / "README.md").write_text(model_card(spec, size, test_error, commit), encoding="utf-8")


def model_card(spec: RunSpec, image_size: int, test_error: float, commit: str | None) -> str:
    """Return the model card of a run: Markdown, with the hub's metadata as front matter.

    Args:
        spec: the run.
        image_size: height and width, in pixels, of the images that it was tested on.
        test_error: its test error in percent.
        commit: the commit of this project that trained it; None if unknown.
    """
    from huggingface_hub import EvalResult, ModelCardData

    data, protocol, network = spec.data, spec.protocol, find_network(spec.network.name)
    options = ", ".join(f"{key} = {value}" for key, value in spec.network.options.items())
    result = EvalResult(
        task_type="image-classification",
        dataset_type=HUB_DATASETS.get(data.dataset, data.dataset),
        dataset_name=data.dataset,
        dataset_split="test",
        metric_type="accuracy",
        metric_name="accuracy in percent",
        metric_value=round(100 - test_error, 4),
    )
    front = ModelCardData(
        model_name=spec.name,
        license="mit",
        library_name="pytorch",
        pipeline_tag="image-classification",
        tags=["image-classification", "residual-attention-network", "arxiv:1704.06904"],
        datasets=[HUB_DATASETS[data.dataset]] if data.dataset in HUB_DATASETS else None,
        metrics=["accuracy"],
        eval_results=[result],
    )
    noise = f", with {data.noise} % of the training labels made wrong" if data.noise else ""
    reading = f"\nOur reading of the paper: {network.our_reading}.\n" if network.our_reading else ""
    return f"""---
{front.to_yaml()}
---

# {spec.name}

`{spec.network.name}`{f" ({options})" if options else ""} of *Residual Attention Network for Image Classification*
(Wang et al., CVPR 2017, [arXiv:1704.06904](https://arxiv.org/abs/1704.06904)), trained by a reproduction of the paper.
{reading}
| | |
|---|---|
| test error | {test_error:.2f} % on {data.test_images:,} images, one run |
| data | {data.dataset}, {data.train_images:,} training images at {data.image_size}x{data.image_size} pixels{noise} |
| training | {protocol.iterations:,} iterations of {protocol.batch_size} images, {spec.precision}, seed {spec.seed} |
| run | {spec.folder_name} |
| commit | {commit or "unknown"} |

## Use

In a checkout of the project:

```python
from models import load_trained

net = load_trained("{HUB_WEIGHTS}")
probabilities = net.predict(images)  # uint8 [N, {image_size}, {image_size}, 3]
print(net.classes[probabilities[0].argmax()])
```

The normalisation is part of the file. `python -m pipeline predict {HUB_WEIGHTS} IMAGE` also draws the attention masks.

## Limits

The network knows the {len(data.classes)} classes of {data.dataset} only, and always chooses one of them.
Its error on other images is not measured.
"""
