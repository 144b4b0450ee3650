"""The networks of "Residual Attention Network for Image Classification" (arXiv:1704.06904), in pure PyTorch."""

from __future__ import annotations

from models.options import AttentionOptions
from models.registry import NETWORKS, Network, create_model, find_network, list_models, resolve_options

__all__ = ["NETWORKS", "AttentionOptions", "Network", "create_model", "find_network", "list_models", "resolve_options"]
