"""The best trial as an override of a profile, and overrides as arguments of `python -m pipeline compose`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.settings.reading import read_yaml
from pipeline.utils.errors import UserError


def write_override(tree: Mapping[str, Any], comment: str) -> str:
    """YAML of an override, its comment on top."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)


def read_arguments(path: Path) -> list[str]:
    """An override's leaves as Hydra takes them, e.g. ``++protocol.padding=4`` (``++`` also adds a key that is new)."""
    tree = read_yaml(path)
    if not isinstance(tree, Mapping) or not tree:
        raise UserError(f"{path}: must hold keys and values, as best.yaml of a search does")
    return [f"++{key}={_value(value)}" for key, value in _leaves(tree)]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return f"'{value}'" if isinstance(value, str) else repr(value)
