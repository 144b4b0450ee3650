"""The table of networks, and how one is made by its name.

This module does not import PyTorch before a network is created: names and options can be checked at no cost.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from models.options import OPTION_NAMES, AttentionOptions

if TYPE_CHECKING:
    import torch
    from torch import nn


PAPER_OPTIONS: Final = AttentionOptions()


@dataclass(frozen=True)
class Network:
    """One network of the paper.

    builder: "module:function" inside this package; the function takes the number of classes, `arguments`, and for an
        attention network its `options`.
    num_classes, image_size: of the data set, and the test images in pixels, that the paper counts it on.
    arguments: of the builder.
    options: an attention network's own; None for the others.
    our_reading: what of the structure is inferred, for lack of a published one; "" where nothing is.
    """

    builder: str
    num_classes: int
    image_size: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: AttentionOptions | None = None
    our_reading: str = ""

    def build(self, num_classes: int, options: AttentionOptions | None) -> nn.Module:
        module, function = self.builder.split(":")
        build: Callable[..., nn.Module] = getattr(import_module(f"models.{module}"), function)
        chosen = {} if options is None else {"options": options}
        return build(num_classes, **self.arguments, **chosen)


def _cifar(builder: str, **arguments: int) -> Network:
    return Network(builder, 10, 32, arguments)


def _cifar_attention(modules: int, options: AttentionOptions = PAPER_OPTIONS, our_reading: str = "") -> Network:
    reading = (
        "stem, widths, mask poolings and places of the plain units inferred from the published sizes" + our_reading
    )
    return Network("residual_attention:cifar_attention", 10, 32, {"modules": modules}, options, reading)


def _imagenet(builder: str, image_size: int = 224, *, our_reading: str = "", **arguments: Any) -> Network:
    return Network(builder, 1000, image_size, arguments, our_reading=our_reading)


def _attention(*modules: int, unit: str = "preactivation", our_reading: str = "") -> Network:
    arguments = {"modules": modules, "unit": unit}
    return Network("residual_attention:imagenet_attention", 1000, 224, arguments, PAPER_OPTIONS, our_reading)


NETWORKS: Final[dict[str, Network]] = {
    "attention56": _attention(1, 1, 1),
    "attention92": _attention(1, 2, 3),
    "attentionnext56": _attention(1, 1, 1, unit="resnext"),
    "attentionnext92": _attention(1, 2, 3, unit="resnext"),
    "attentioninception56": _attention(
        1, 1, 1, unit="inception", our_reading="the whole unit: no structure of this network is published"
    ),
    "resnet152": _imagenet("resnet:resnet", units=(3, 8, 36, 3)),
    "preresnet200": _imagenet("resnet:preresnet", units=(3, 24, 36, 3)),
    "resnext101_32x4d": _imagenet("resnet:resnext101_32x4d"),
    "inception_resnet_v1": _imagenet(
        "inception_resnet:inception_resnet_v1",
        299,
        our_reading="with the sixth C block and the layer before the classifier that public implementations have",
        embedding=512,
    ),
    "inception_resnet_v2": _imagenet("inception_resnet:inception_resnet_v2", 299),
    "cifar_attention56": _cifar_attention(1),
    "cifar_attention92": _cifar_attention(2),
    "cifar_attention128": _cifar_attention(3),
    "cifar_attention164": _cifar_attention(4),
    "cifar_attention236": _cifar_attention(6),
    "cifar_attention452": _cifar_attention(
        6, AttentionOptions(p=2, t=4, r=3), "; the mask of the last stage kept at two units"
    ),
    "cifar_preresnet164": _cifar("resnet:cifar_preresnet", units=18),
    "cifar_preresnet1001": _cifar("resnet:cifar_preresnet", units=111),
    "cifar_wrn16_8": _cifar("resnet:cifar_wide_resnet", units=2, width=8),
    "cifar_wrn28_10": _cifar("resnet:cifar_wide_resnet", units=4, width=10),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern ("cifar_*"), in natural order (56 before 128)."""
    return sorted((name for name in NETWORKS if fnmatchcase(name, pattern)), key=natural_order)


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """What to sort names by, for 56 to come before 128."""
    return tuple((int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name))


def find_network(name: str) -> Network:
    """The table's entry of a name. Raises ValueError, suggesting the nearest name, when there is none."""
    if name in NETWORKS:
        return NETWORKS[name]
    near = difflib.get_close_matches(str(name), NETWORKS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(list_models())}"
    raise ValueError(f"unknown network {name!r}; {hint}")


def resolve_options(name: str, options: Mapping[str, Any]) -> AttentionOptions | None:
    """All options of a network, given those that differ from its own; None for a network without attention.

    Raises ValueError for an unknown network, an unknown option or a wrong value.
    """
    network = find_network(name)
    allowed = OPTION_NAMES if network.options else ()
    for option in options:
        if option not in allowed:
            names = f"its options are {', '.join(allowed)}" if allowed else "it has no options"
            raise ValueError(f"{name}: unknown option {option!r}; {names}")
    if network.options is None:
        return None
    try:
        return network.options.updated(**options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    **options: Any,
) -> nn.Module:
    """A network by its name, ready to train.

    The network maps float images [N, 3, H, W] to class scores [N, num_classes]. Weights are drawn from `seed` alone;
    PyTorch's own random state is neither read nor changed. On the "meta" device nothing is allocated or drawn.

    num_classes: defaults to that of the data set the paper names (10 for "cifar_*", else 1000).
    options: of the attention networks, see `AttentionOptions`.

    Raises ValueError for an unknown name, an unknown option or a wrong value.
    """
    import torch

    from models.initialisation import allocate, initialise

    network = find_network(name)
    resolved = resolve_options(name, options)
    classes = network.num_classes if num_classes is None else num_classes
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise ValueError(f"num_classes: {num_classes!r} is not a whole number of at least 1")
    with torch.device("meta"):  # a layer's own initialisation would draw from the global generator
        model = network.build(classes, resolved)
    if torch.device(device).type == "meta":
        return model
    allocate(model)  # drawn on the CPU: the same weights on every device
    initialise(model, seed)
    return model.to(device)
