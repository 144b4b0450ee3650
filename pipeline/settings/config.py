"""Load, compose and compare settings; the only reader of ``params.yaml``.

Profiles are below ``conf/`` and are composed by DVC (with Hydra) into ``params.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.settings import plan
from pipeline.settings.reading import check, read_yaml
from pipeline.settings.tree import Config
from pipeline.utils.errors import UserError, shown

PARAMS = plan.PARAMS
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
        root: folder of the project.

    Raises:
        UserError: if there is no such profile, or an override or the result is not valid; nothing is written then.
    """
    if profile not in profiles(root):
        raise UserError(f"profile = {shown(profile)}: must be one of {', '.join(profiles(root))}")
    for path in sorted((root / "conf").rglob("*.yaml")):
        read_yaml(path)  # its messages name the line
    fresh = output.with_name(f".{output.stem}.{os.getpid()}.yaml")
    try:
        if not _composes(profile, overrides, fresh, root):
            raise UserError(_culprit(profile, overrides, fresh, root))
        config = parse(read_yaml(fresh), f"profile {profile}")
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)
    return config


def _composes(profile: str, overrides: list[str], output: Path, root: Path) -> bool:
    """Write a composed profile; whether Hydra could do so."""
    from dvc.utils.hydra import compose_and_dump

    if any(_is_foreign(override) for override in overrides):
        return False
    conf = str((root / "conf").resolve())
    try:
        compose_and_dump(str(output), conf, None, "config", "", [f"profile={profile}", *overrides])
    except OSError:
        raise
    except Exception:  # Hydra, OmegaConf and the parser of overrides raise many types, in words of their own
        return False
    return True


def _is_foreign(override: str) -> bool:
    """Return whether an override is none of a value of the profile.

    Hydra's own settings would be taken and do nothing, another profile would replace the one that was named, and an
    interpolation could put the value of an environment variable into ``params.yaml``.
    """
    key = override.lstrip("+~").partition("=")[0]
    return key.startswith(("hydra", "profile")) or "${" in override


def _culprit(profile: str, overrides: list[str], output: Path, root: Path) -> str:
    """Return what is wrong with a composition that failed: the first override without which it would not have."""
    for index, override in enumerate(overrides):
        if not _composes(profile, overrides[: index + 1], output, root):
            return (
                f"profile {profile}: {shown(override)}: not an override; allowed is KEY=VALUE with a key of params.yaml"
                " (++KEY=VALUE adds one) and one YAML value, e.g. data.source=/path/to/shards"
            )
    return f"profile {profile}: conf/ cannot be composed; its keys and defaults must be those of Hydra"


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
