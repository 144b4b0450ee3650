"""The training code and the data as they are now, which finished runs are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.spec import NUMERICS
from pipeline.utils.errors import UserError
from pipeline.utils.files import read_json

if TYPE_CHECKING:
    from pipeline.report.records import Run

OLDER_CODE = "older training code"
CHANGED_DATA = "data has changed since"
MOVED = "moved between classes of hardware, threads or versions"
INFERRED = "the structure of the network is inferred, in whole or in part"
AT_CHANCE = "a run no better than guessing"
DIVERGED = "a run that has diverged: its responses or masks are not finite"
MIXED = "runs on different hardware, threads or versions"
MARKS = {OLDER_CODE: "†", CHANGED_DATA: "‡", INFERRED: "§", MOVED: "¶", AT_CHANCE: "‖", MIXED: "#", DIVERGED: "††"}
"""What a marked number has against it, and its sign in the tables."""


@dataclass(frozen=True)
class Present:
    """The version of the training arithmetic, and checksums of the data sets that are prepared here.

    `noise` is by data set and level. A data set that is not here says nothing about any run.
    """

    numerics: int = NUMERICS
    data: Mapping[str, str] = field(default_factory=dict)
    noise: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def marks(self, run: Run) -> set[str]:
        """What is to be said of a run today, by what is tracked of it: the same in every checkout."""
        data = run.config["data"]
        marks = {OLDER_CODE} if run.config["numerics"] < self.numerics else set()
        if run.is_at_chance:
            marks.add(AT_CHANCE)
        if run.has_diverged:
            marks.add(DIVERGED)
        if run.published is not None and run.published.provenance.was_moved:
            marks.add(MOVED)
        same = self.data.get(data["dataset"], data["checksum"]) == data["checksum"]
        labels = data.get("noise_checksum")
        if not same or self.noise.get((data["dataset"], data.get("noise") or 0), labels) != labels:
            marks.add(CHANGED_DATA)
        return marks


def read_present(data: Path | None) -> Present:
    """The present state: the code that runs, and the manifests below `data` (None: nothing is known of data)."""
    if data is None:
        return Present()
    prepared = {path.parent.name: _checksum(path) for path in sorted(data.glob("prepared/*/manifest.json"))}
    noisy = {
        (path.parent.parent.name, int(path.parent.name)): _checksum(path)
        for path in sorted(data.glob("noisy/*/*/manifest.json"))
        if path.parent.name.isdecimal()
    }
    return Present(
        data={dataset: checksum for dataset, checksum in prepared.items() if checksum},
        noise={place: checksum for place, checksum in noisy.items() if checksum},
    )


def _checksum(manifest: Path) -> str | None:
    """The checksum in a manifest; None where it cannot be read: then nothing is held against any run."""
    try:
        content = read_json(manifest)
    except (UserError, OSError, RecursionError):
        return None
    checksum = content.get("checksum") if isinstance(content, dict) else None
    return checksum if isinstance(checksum, str) else None
