"""The table of networks, and the function that makes a network by its name.

PyTorch is imported when a network is created, so that names and options can be checked without it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from models.options import OPTION_NAMES, AttentionOptions, check_integer

if TYPE_CHECKING:
    import torch
    from torch import nn


PAPER_OPTIONS: Final = AttentionOptions()


@dataclass(frozen=True)
class Network:
    """One network of the paper.

    Attributes:
        builder: "module:function" inside this package; the function takes the number of classes, `arguments`, and for
            an attention network its `options`.
        num_classes: number of classes of the data set that the paper counts the network on.
        image_size: height and width, in pixels, of the images that the paper counts it on.
        arguments: keyword arguments of the builder.
        options: default options of an attention network; None for the other networks.
        our_reading: the part of the structure that is inferred because none is published; "" if nothing is.
    """

    builder: str
    num_classes: int
    image_size: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: AttentionOptions | None = None
    our_reading: str = ""

    def build(self, num_classes: int, options: AttentionOptions | None) -> nn.Module:
        """Return the network on PyTorch's default device, with the weights of PyTorch's own initialisation."""
        module, function = self.builder.split(":")
        build: Callable[..., nn.Module] = getattr(import_module(f"models.{module}"), function)
        chosen = {} if options is None else {"options": options}
        return build(num_classes, **self.arguments, **chosen)


@dataclass(frozen=True)
class Counts:
    """Size and cost of a network.

    Attributes:
        parameters: learnable parameters, with scale and shift of batch norm.
        multiply_adds: multiply-adds of convolutions and linear layers, for one image.
        trunk_depth: convolutions and linear layers on the longest path outside the masks. (The names of wide ResNets
            count three projections instead of the classifier.)
        activation_bytes: memory that one float32 image keeps for the backward pass, without parameters.
    """

    parameters: int
    multiply_adds: int
    trunk_depth: int
    activation_bytes: int


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
    """Return the names that match a shell pattern such as "cifar_*", in natural order (56 before 128)."""
    return sorted((name for name in NETWORKS if fnmatchcase(name, pattern)), key=natural_order)


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return the key that sorts names with 56 before 128."""
    return tuple((int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name))


def find_network(name: str) -> Network:
    """Return the entry of a name; ValueError, with the nearest name, for an unknown one."""
    if name in NETWORKS:
        return NETWORKS[name]
    near = difflib.get_close_matches(str(name), NETWORKS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(list_models())}"
    raise ValueError(f"unknown network {name!r}; {hint}")


def resolve_options(name: str, options: Mapping[str, Any]) -> AttentionOptions | None:
    """Complete the options of a network with its defaults.

    Args:
        name: name of the network.
        options: the options that differ from the defaults.

    Returns:
        all options; None for a network without attention.

    Raises:
        ValueError: for an unknown network, an unknown option or a wrong value.
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
    in_chans: int = 3,
    features_only: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    **options: Any,
) -> nn.Module:
    """Create a network with initial weights.

    The network maps float images [N, in_chans, H, W] to class scores [N, num_classes]. As in timm, its
    `forward_features` returns the feature maps [N, C, h, w] before the global average pooling, and its `forward_head`
    the scores of those; `num_features` is the number of features before the classifier. Forward hooks on
    `models.staged.stages_of(network)` receive the outputs of the stages; hooks on the parts `trunk`, `mask` and
    `fusion` of a `models.attention.AttentionModule` those of its branches.

    Args:
        name: one of `list_models()`.
        num_classes: number of classes; 0 for pooled features [N, num_features] instead of scores. Default: that of
            the data set that the paper names (10 for "cifar_*", else 1000).
        in_chans: channels of the images.
        features_only: return a `models.staged.StageFeatures`, which maps images to the list of the outputs
            [N, C, h, w] of all stages.
        seed: seed of the initial weights. PyTorch's global random state is neither read nor changed.
        device: where the network is; nothing is allocated or drawn on "meta".
        **options: options of an attention network that differ from its defaults; see `AttentionOptions`.

    Raises:
        ValueError: for an unknown name, an unknown option or a wrong value.
    """
    import torch

    from models.initialisation import allocate, initialise
    from models.staged import StageFeatures, set_input_channels

    network = find_network(name)
    resolved = resolve_options(name, options)
    classes = network.num_classes if num_classes is None else num_classes
    check_integer("num_classes", classes, 0)
    check_integer("in_chans", in_chans, 1)
    with torch.device("meta"):  # the layers' own initialisation would draw from the global generator
        model = network.build(0 if features_only else classes, resolved)
        if in_chans != 3:
            set_input_channels(model, in_chans)
    if torch.device(device).type != "meta":
        allocate(model)  # on the CPU, so that the weights are the same on every device
        initialise(model, seed)
        model = model.to(device)
    return StageFeatures(model) if features_only else model
