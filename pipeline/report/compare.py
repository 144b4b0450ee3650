"""Whether a report just made agrees with the committed one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.utils.files import read_json

SUMMARY = "summary.json"


def compare(profile: str, root: Path) -> str:
    """Compare the numbers of ``reports/<profile>/summary.json`` with those of the last commit, in a sentence."""
    path = Path("reports") / profile / SUMMARY
    committed = subprocess.run(
        ["git", "-C", str(root), "show", f"HEAD:{path.as_posix()}"], capture_output=True, check=False
    )
    if committed.returncode:
        return f"reports/{profile}/report.html: no report of this profile is committed yet to compare it with"
    before, now = dict(_numbers(json.loads(committed.stdout))), dict(_numbers(read_json(root / path)))
    different = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    if not different:
        return f"reports/{profile}/report.html agrees with the committed report: all {len(now)} numbers are equal"
    return (
        f"reports/{profile}/report.html: {len(different)} of {len(now)} numbers are other than in the committed report"
        f" (`git diff reports/{profile}` shows them); bit-equality holds within one class of hardware and versions"
    )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{key}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{key}/{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
