"""Whether a report just made agrees with the committed one, and the runs just trained with the published seeds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.report.summaries import SUMMARY, Prediction, read_predictions
from pipeline.runs.reading import read_object
from pipeline.utils.errors import UserError, one_line, printable

PRINTED_DECIMALS = 2  # of errors in the report's tables


def compare(profile: str, root: Path) -> str:
    """Say how ``reports/<profile>/summary.json`` compares with the committed one and with the published seeds."""
    path = Path("reports") / profile / SUMMARY
    page = f"reports/{profile}/report.html"
    committed = subprocess.run(
        ["git", "-C", str(root), "show", f"HEAD:{path.as_posix()}"], capture_output=True, check=False
    )
    now = read_object(root / path)
    before = _parsed(committed.stdout, path) if committed.returncode == 0 else None
    lines = [f"{page}: {_committed(before, now)}"]
    if predictions := read_predictions(now, root / path):
        lines += _predicted(read_predictions(before or {}, Path(f"HEAD:{path}")), predictions)
    return "\n".join(lines)


def _parsed(committed: bytes, path: Path) -> Any:
    try:
        return json.loads(committed)
    except (ValueError, RecursionError) as error:
        raise UserError(f"HEAD:{path}: not valid JSON ({one_line(error)})") from None


def _committed(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """How many numbers of the report are those of the committed one."""
    if before is None:
        return "no report of this profile is committed yet to compare it with"
    old, new = dict(_numbers(before)), dict(_numbers(now))
    different = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if not different:
        return f"agrees with the committed report: all {len(new)} numbers are equal"
    if all(_same_when_printed(old.get(key), new.get(key)) for key in different):
        return (
            f"agrees with the committed report in all printed digits; {len(different)} of {len(new)} numbers differ in"
            " digits that are not printed"
        )
    return (
        f"{len(different)} of {len(new)} numbers differ from the committed report (`git diff` shows them); equal bits"
        " are promised within one class of hardware, threads and versions"
    )


def _same_when_printed(old: float | None, new: float | None) -> bool:
    return old is not None and new is not None and round(old, PRINTED_DECIMALS) == round(new, PRINTED_DECIMALS)


def _predicted(known: Mapping[str, Prediction], predictions: Mapping[str, Prediction]) -> list[str]:
    """How many of the runs trained here are equal to the committed ones, within or outside the prediction intervals."""
    equal, within, outside = 0, 0, []
    for experiment, expected in predictions.items():
        before = known[experiment].trained if experiment in known else {}
        for run, error in expected.trained.items():
            if before.get(run) == error:
                equal += 1
            elif expected.low <= error <= expected.high:
                within += 1
            else:
                outside.append(printable(f"{run}: {error:.2f} %, expected {expected.low:.2f} to {expected.high:.2f} %"))
    seeds = sorted({expected.n for expected in predictions.values()})
    n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    trained = equal + within + len(outside)
    lines = [
        f"of the {trained} runs trained here: {equal} equal to the committed results, {within} within the 95 %"
        f" prediction interval of the {n} published seeds, {len(outside)} outside"
    ]
    if outside:
        lines += ["outside (one run in twenty is expected to be):", *(f"  {line}" for line in outside)]
    return lines


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{key}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{key}/{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
