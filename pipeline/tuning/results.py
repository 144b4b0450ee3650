"""What a search has found: a table, two pictures and an override, from the files of its trials alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.settings.reading import check
from pipeline.tuning.override import write_override
from pipeline.tuning.space import Space, Value, override
from pipeline.tuning.trials import Progress, Settled, trials
from pipeline.utils.files import csv_text, write_atomic

REPORTS = Path("reports/tune")
ORDER = ("finished", "pruned", "running", "failed")


@dataclass(frozen=True)
class Findings:
    """A search and its trials, the best first: finished ones by error, then the others by how far they came."""

    settled: Settled
    space: Space
    trials: tuple[Progress, ...]

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """Of the folder of a search."""
        settled = Settled.read(folder)
        space = check(Space, settled.space, str(folder))
        return cls(settled, space, tuple(sorted(trials(folder), key=_rank)))

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(progress.trial.state == state for progress in self.trials)

    @property
    def best(self) -> Progress | None:
        """The finished trial with the least error, the earlier one of two."""
        return self.trials[0] if self.trials and self.trials[0].trial.state == "finished" else None

    @property
    def own(self) -> Progress | None:
        """The finished trial with the profile's own settings."""
        for progress in self.trials:
            if progress.trial.state == "finished" and progress.trial.values == self.settled.baseline:
                return progress
        return None

    @property
    def first_comparison(self) -> int:
        """Iteration from which on trials are compared for the first time: every trial comes this far."""
        return max(1, round(self.space.stopping.grace * self.settled.iterations))

    def standard_error(self, error: float) -> float:
        """Of an error rate in percent, over the validation images."""
        return 100 * math.sqrt(error / 100 * (1 - error / 100) / self.settled.validation_images)


def _rank(progress: Progress) -> tuple[int, float, float, int]:
    error = math.inf if progress.error is None else progress.error
    far = -progress.rows[-1].iteration if progress.rows else 0
    return ORDER.index(progress.trial.state), far, error, progress.trial.number


def write_results(folder: Path, reports: Path = REPORTS) -> tuple[Findings, Path]:
    """Write the results of a search; what was found, and their folder ``reports/tune/<name>/``."""
    from pipeline.tuning.figures import draw_coordinates, draw_importance  # matplotlib, where it is needed

    found = Findings.read(folder)
    target = reports / found.settled.name
    write_atomic(target / "trials.csv", as_csv(found))
    finished = [(p.trial.values, p.error) for p in found.trials if p.trial.state == "finished" and p.error is not None]
    # At the first comparison every trial has had the same training: errors at their ends could not be compared.
    first = [(p.trial.values, p.error_at(found.first_comparison)) for p in found.trials]
    compared = [(values, error) for values, error in first if error is not None]
    pictures = {
        "coordinates.svg": draw_coordinates(found.space, finished, found.settled.name),
        "importance.svg": draw_importance(found.space, compared, found.settled.name, found.first_comparison),
    }
    for name, picture in pictures.items():
        if picture is None:
            (target / name).unlink(missing_ok=True)
        else:
            write_atomic(target / name, picture)
    write_atomic(target / "trials.md", as_markdown(found, [name for name in pictures if pictures[name]]))
    if found.best is not None:
        write_atomic(target / "best.yaml", best_override(found))
    else:
        (target / "best.yaml").unlink(missing_ok=True)
    return found, target


def as_csv(found: Findings) -> str:
    """All trials with all digits."""
    names = list(found.space.parameters)
    header = ["trial", "state", "iteration", "epoch", "validation_error", "validation_loss", *names, "run"]
    rows = []
    for progress in found.trials:
        last = progress.rows[-1] if progress.rows else None
        reached = [last.iteration, last.epoch, last.test_error, last.test_loss] if last else ["", "", "", ""]
        values = [_plain(progress.trial.values[name]) for name in names]
        rows.append([progress.trial.number, progress.trial.state, *reached, *values, progress.folder.name])
    return csv_text(header, rows)


def as_markdown(found: Findings, pictures: Sequence[str]) -> str:
    """The page of a search: what it is, what came out, every trial."""
    settled, names = found.settled, list(found.space.parameters)
    lines = [
        f"# Search `{settled.name}`",
        "",
        settled.statement,
        "",
        f"`{settled.experiment}` on `{settled.dataset}`, profile `{settled.profile}`, seed {settled.seed}: up to"
        f" {settled.iterations:,} iterations on {settled.train_images:,} training images. Errors are those of"
        f" {settled.validation_images:,} other training images, held out; no test image was used. Code:"
        f" {settled.commit[:12] if settled.commit else 'outside git'}.",
        "",
        f"{len(found.trials)} of {settled.wanted} trials: {found.count('finished')} finished, {found.count('pruned')}"
        f" stopped early, {found.count('failed')} failed. First compared at iteration {found.first_comparison:,}.",
        "",
        *verdict(found),
        "",
        f"| trial | state | epochs | error, % (± standard error) | {' | '.join(names)} |",
        f"|{'---|' * (4 + len(names))}",
        *(_row(found, progress, names) for progress in found.trials),
        "",
        *(f"![{name.removesuffix('.svg')}]({name})" for name in pictures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def verdict(found: Findings) -> list[str]:
    """What may be concluded, and what not."""
    if found.best is None or found.best.error is None:
        return ["No trial has finished."]
    own, error = found.own, found.best.error
    told = f"Best: trial {found.best.trial.number} with {error:.2f} %"
    if own is None or own.error is None:
        return [f"{told}. The profile's own settings were not among the trials that finished."]
    if own is found.best:
        return [f"{told}: these are the profile's own settings."]
    gain, doubt = own.error - error, math.hypot(found.standard_error(error), found.standard_error(own.error))
    sure = "more than" if gain > 2 * doubt else "not more than"
    return [
        f"{told}, {gain:.2f} points less than the profile's own settings ({own.error:.2f} %); that is {sure} twice the"
        f" standard error of the difference ({doubt:.2f} points). The least of several errors is too low by"
        " construction: train it with several seeds before believing it."
    ]


def _row(found: Findings, progress: Progress, names: Sequence[str]) -> str:
    error = progress.error
    shown = "" if error is None else f"{error:.2f} ± {found.standard_error(error):.2f}"
    epochs = f"{progress.rows[-1].epoch:.1f}" if progress.rows else ""
    state = {"pruned": "stopped"}.get(progress.trial.state, progress.trial.state)
    if progress.trial.reason:
        state = f"{state}: {progress.trial.reason}"
    values = [str(_plain(progress.trial.values[name])) for name in names]
    return f"| {' | '.join([str(progress.trial.number), state, epochs, shown, *values])} |"


def _plain(value: Value) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def best_override(found: Findings) -> str:
    """YAML of what the best trial has other than the profile."""
    assert found.best is not None and found.best.error is not None
    settled, best = found.settled, found.best
    comment = (
        f"Trial {best.trial.number} of search {settled.name}-{settled.identity}, the best of {len(found.trials)}:"
        f" {best.error:.2f} % error\non {settled.validation_images} held-out training images of {settled.dataset}"
        f" after {settled.iterations} iterations, seed {settled.seed}.\n"
        f"python -m pipeline compose {settled.profile} --override {REPORTS / settled.name / 'best.yaml'}\n"
        "puts it into params.yaml; `git diff params.yaml` shows what that changes."
    )
    return write_override(override(best.trial.values, settled.experiment, settled.iterations), comment)
