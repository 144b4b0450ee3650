"""Load, compose and compare settings; the only reader of ``params.yaml``.

Profiles are below ``conf/`` and are composed by DVC (with Hydra) into ``params.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.settings.reading import check, read_yaml
from pipeline.settings.tree import Config
from pipeline.utils.errors import UserError

PARAMS = "params.yaml"
PROFILES = Path("conf/profile")


def parse(content: Any, source: str = PARAMS) -> Config:
    """Check a tree of settings; see `check`."""
    return check(Config, content, source)


def load(path: str | Path = PARAMS) -> Config:
    """Read and check ``params.yaml``."""
    return parse(read_yaml(path), str(path))


def profiles(root: Path = Path()) -> list[str]:
    """The profiles under ``conf/profile``."""
    return sorted(path.stem for path in (root / PROFILES).glob("*.yaml"))


def compose(profile: str, overrides: list[str], output: Path, root: Path = Path()) -> Config:
    """Compose a profile by DVC's own means, check it, and only then write it.

    Args:
        profile: name of a file under ``conf/profile``.
        overrides: Hydra overrides, e.g. ``data.source=/path/to/shards``.
        output: the file to write, normally ``params.yaml``.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if profile not in profiles(root):
        raise UserError(f"profile = {profile!r}: must be one of {', '.join(profiles(root))}")
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"{override!r}: not an override; allowed is KEY=VALUE, e.g. data.source=/path/to/shards")
    fresh = output.with_name(f".{output.stem}.{os.getpid()}.yaml")
    try:
        compose_and_dump(
            str(fresh), str((root / "conf").resolve()), None, "config", "", [f"profile={profile}", *overrides]
        )
        config = parse(read_yaml(fresh), f"profile {profile}")
        fresh.replace(output)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"profile {profile}: {' '.join(str(error).split())}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return config


def drift(path: Path = Path(PARAMS), root: Path = Path()) -> list[str]:
    """Differences between ``params.yaml`` and the composed profile that it names, a line each."""
    current = read_yaml(path)
    composed = path.with_name(f".{path.stem}.composed.{os.getpid()}.yaml")
    try:
        compose(str(current.get("profile")), [], composed, root)
        wanted = read_yaml(composed)
    finally:
        composed.unlink(missing_ok=True)
    left, right = dict(_leaves(current)), dict(_leaves(wanted))
    missing = "(none)"
    return [
        f"{key}: params.yaml has {left.get(key, missing)}, conf/ has {right.get(key, missing)}"
        for key in dict.fromkeys([*left, *right])
        if left.get(key, missing) != right.get(key, missing)
    ]


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{prefix}.{key}".removeprefix("."))]
    return [(prefix, value)]
