"""What `dvc exp run` composes: params.yaml with all its edits, or the profile that `-S profile=...` names.

Without this plugin of Hydra, each `dvc exp run` would compose the default profile anew and overwrite params.yaml.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
KEPT = "kept"
PROFILE, SWITCHED = "profile/", "switched/"  # conf/config.yaml loads one file of each group


class KeptParams(ConfigSource):
    """The source of `profile/kept`, which is params.yaml, and of `switched/<profile>`, which is empty.

    Attributes:
        comparing: whether the composition is the one that params.yaml is compared with.
    """

    comparing = False

    @staticmethod
    def scheme() -> str:
        """Return the scheme of this source in Hydra's search path."""
        return "params"

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a configuration.

        Raises:
            DvcException: if there is no such profile, or if another profile would discard edits of params.yaml.
        """
        config: Any = OmegaConf.create()
        if config_path == PROFILE + KEPT:
            config = OmegaConf.load(ROOT / "params.yaml")
        elif config_path.startswith(PROFILE):  # conf/ comes first in the search path and does not have it
            _refuse_unknown(config_path.removeprefix(PROFILE))
        elif config_path != SWITCHED + KEPT and not self.comparing:
            _refuse_to_discard_edits(config_path.removeprefix(SWITCHED))
        return ConfigResult(self.provider, self.path, config, {"package": "_global_"})

    def is_group(self, config_path: str) -> bool:
        """Return whether this source has a group."""
        return f"{config_path}/" in (PROFILE, SWITCHED)

    def is_config(self, config_path: str) -> bool:
        """Return whether this source has a configuration."""
        return config_path.startswith((PROFILE, SWITCHED))

    def available(self) -> bool:
        """Return whether there is a params.yaml."""
        return (ROOT / "params.yaml").exists()

    def list(self, config_path: str, results_filter: Any) -> list[str]:
        """Return the configurations of a group that can be listed: none."""
        return []


class KeptParamsPath(SearchPathPlugin):
    """Put `KeptParams` behind conf/ in Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the source."""
        search_path.append("params", "params://")


def _refuse_unknown(profile: str) -> None:
    names = sorted(path.stem for path in (ROOT / "conf" / "profile").glob("*.yaml"))
    near = difflib.get_close_matches(profile, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise DvcException(f"profile = {profile!r}: {hint}allowed: {', '.join(names)}")


def _refuse_to_discard_edits(profile: str) -> None:
    sys.path.insert(0, str(ROOT))  # DVC's own process does not have the project on its path
    from pipeline.settings.config import drift
    from pipeline.utils.errors import UserError

    hydra, composing = GlobalHydra.instance(), GlobalHydra.instance().hydra
    hydra.clear()  # `drift` composes, too
    KeptParams.comparing = True
    try:
        edits = drift(ROOT / "params.yaml", ROOT)
    except UserError as error:
        raise DvcException(str(error)) from None
    finally:
        KeptParams.comparing = False
        sys.path.remove(str(ROOT))
        hydra.clear()
        hydra.initialize(composing)
    if edits:
        more = f" and {len(edits) - 1} more" if len(edits) > 1 else ""
        raise DvcException(
            f"-S profile={profile} would discard edits of params.yaml ({edits[0]}{more}); to discard them, type:"
            f" python -m pipeline compose {profile}"
        )
