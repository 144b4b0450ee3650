"""The networks for `torch.hub`: `torch.hub.load(repository, "attention92", num_classes=10)`.

There is one entry point for each name of `models.list_models()`, with the arguments of `models.create_model`; and
`load_trained`, which takes the file of a trained network. Weights of the paper's experiments are not published.
"""

from functools import partial, update_wrapper

from models import create_model, list_models, load_trained

__all__ = ["dependencies", "load_trained"]
dependencies = ["torch", "timm", "safetensors"]

for _name in list_models():
    globals()[_name] = update_wrapper(partial(create_model, _name), create_model)
