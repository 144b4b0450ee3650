"""The networks of "Residual Attention Network for Image Classification" (arXiv:1704.06904), in pure PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.options import AttentionOptions
from models.registry import NETWORKS, Counts, Network, create_model, find_network, list_models, resolve_options

if TYPE_CHECKING:
    from models.trained import Trained, load_trained

__all__ = [
    "NETWORKS",
    "AttentionOptions",
    "Counts",
    "Network",
    "Trained",
    "create_model",
    "find_network",
    "list_models",
    "load_trained",
    "resolve_options",
]


def __getattr__(name: str) -> Any:
    if name in ("Trained", "load_trained"):  # imported on first use: names and options are checked without PyTorch
        from models import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
