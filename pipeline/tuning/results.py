"""Results of a search: a table, two figures and an override, from the files of its trials alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.tuning.override import write_override
from pipeline.tuning.space import Space, Value, override
from pipeline.tuning.trials import Progress, SearchConfig, trials
from pipeline.utils.files import csv_text, write_atomic
from pipeline.utils.text import markdown

REPORTS = Path("reports/tune")
ORDER = ("finished", "pruned", "running", "failed")


@dataclass(frozen=True)
class SearchResults:
    """A search and its trials, the best first: finished ones by error, then the others by how far they came."""

    config: SearchConfig
    space: Space
    trials: tuple[Progress, ...]

    @classmethod
    def read(cls, folder: Path) -> SearchResults:
        """Of the folder of a search."""
        config = SearchConfig.read(folder)
        return cls(config, config.searched(folder), tuple(sorted(trials(folder), key=_rank)))

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(progress.trial.state == state for progress in self.trials)

    @property
    def best(self) -> Progress | None:
        """The finished trial with the lowest error, the earlier one of two."""
        return self.trials[0] if self.trials and self.trials[0].trial.state == "finished" else None

    @property
    def own(self) -> Progress | None:
        """The finished trial with the profile's own settings."""
        for progress in self.trials:
            if progress.trial.state == "finished" and progress.trial.values == self.config.baseline:
                return progress
        return None

    @property
    def first_comparison(self) -> int:
        """Iteration at which trials are compared for the first time: every trial that does not fail gets there."""
        return self.config.rungs[0] if self.config.rungs else self.config.iterations

    def standard_error(self, error: float) -> float:
        """Of an error rate in percent, over the validation images."""
        return 100 * math.sqrt(error / 100 * (1 - error / 100) / self.config.validation_images)


def _rank(progress: Progress) -> tuple[int, float, float, int]:
    error = math.inf if progress.error is None else progress.error
    far = -progress.rows[-1].iteration if progress.rows else 0
    return ORDER.index(progress.trial.state), far, error, progress.trial.number


def write_results(folder: Path, reports: Path = REPORTS) -> tuple[SearchResults, Path]:
    """Write the results of a search; what was found, and their folder ``reports/tune/<name>/``."""
    from pipeline.tuning.figures import draw_coordinates, draw_importance  # matplotlib, where it is needed

    found = SearchResults.read(folder)
    target = reports / found.config.name
    write_atomic(target / "trials.csv", as_csv(found))
    finished = [(p.trial.values, p.error) for p in found.trials if p.trial.state == "finished" and p.error is not None]
    # At the first comparison every trial has had the same training: errors at their ends could not be compared.
    first = [(p.trial.values, p.error_at(found.first_comparison)) for p in found.trials]
    compared = [(values, error) for values, error in first if error is not None]
    figures = {
        "coordinates.svg": draw_coordinates(found.space, finished, found.config.name),
        "importance.svg": draw_importance(found.space, compared, found.config.name, found.first_comparison),
    }
    for name, figure in figures.items():
        if figure is None:
            (target / name).unlink(missing_ok=True)
        else:
            write_atomic(target / name, figure)
    write_atomic(target / "trials.md", as_markdown(found, [name for name in figures if figures[name]]))
    if found.best is not None:
        write_atomic(target / "best.yaml", best_override(found))
    else:
        (target / "best.yaml").unlink(missing_ok=True)
    return found, target


def as_csv(found: SearchResults) -> str:
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


def as_markdown(found: SearchResults, figures: Sequence[str]) -> str:
    """The page of a search: its configuration, its result, and every trial."""
    config, names = found.config, list(found.space.parameters)
    lines = [
        f"# Search `{config.name}`",
        "",
        markdown(config.statement),
        "",
        f"`{config.experiment}` on `{config.dataset}`, profile `{config.profile}`, seed {config.seed}: up to"
        f" {config.iterations:,} iterations on {config.train_images:,} training images. Errors are those of"
        f" {config.validation_images:,} other training images, held out; no test image was used. Code:"
        f" {markdown(config.commit[:12]) if config.commit else 'outside git'}.",
        "",
        f"{len(found.trials)} of {config.wanted} trials: {found.count('finished')} finished, {found.count('pruned')}"
        f" stopped early, {found.count('failed')} failed. First compared at iteration {found.first_comparison:,}.",
        "",
        *verdict(found),
        "",
        f"| trial | state | epochs | error, % (± standard error) | {' | '.join(names)} |",
        f"|{'---|' * (4 + len(names))}",
        *(_row(found, progress, names) for progress in found.trials),
        "",
        *(f"![{name.removesuffix('.svg')}]({name})" for name in figures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def verdict(found: SearchResults) -> list[str]:
    """Compare the best trial with the profile's own settings, in one paragraph."""
    if found.best is None or found.best.error is None:
        return ["No trial has finished."]
    own, error = found.own, found.best.error
    best = f"Best: trial {found.best.trial.number} with {error:.2f} %"
    if own is None or own.error is None:
        return [f"{best}. The profile's own settings were not among the trials that finished."]
    if own is found.best:
        return [f"{best}: these are the profile's own settings."]
    gain, doubt = own.error - error, math.hypot(found.standard_error(error), found.standard_error(own.error))
    sure = "more than" if gain > 2 * doubt else "not more than"
    return [
        f"{best}, {gain:.2f} points less than the profile's own settings ({own.error:.2f} %); that is {sure} twice the"
        f" standard error of the difference ({doubt:.2f} points). The lowest of several errors is biased downwards:"
        " confirm it by training with several seeds."
    ]


def _row(found: SearchResults, progress: Progress, names: Sequence[str]) -> str:
    error = progress.error
    shown = "" if error is None else f"{error:.2f} ± {found.standard_error(error):.2f}"
    epochs = f"{progress.rows[-1].epoch:.1f}" if progress.rows else ""
    state = {"pruned": "stopped"}.get(progress.trial.state, progress.trial.state)
    if progress.trial.reason:
        state = f"{state}: {markdown(progress.trial.reason)}"
    values = [markdown(_plain(progress.trial.values[name])) for name in names]
    return f"| {' | '.join([str(progress.trial.number), state, epochs, shown, *values])} |"


def _plain(value: Value) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def best_override(found: SearchResults) -> str:
    """YAML of what the best trial has other than the profile."""
    assert found.best is not None and found.best.error is not None
    config, best = found.config, found.best
    comment = (
        f"Trial {best.trial.number} of search {config.name}-{config.identity}, the best of {len(found.trials)}:"
        f" {best.error:.2f} % error\non {config.validation_images} held-out training images of {config.dataset}"
        f" after {config.iterations} iterations, seed {config.seed}.\n"
        f"python -m pipeline compose {config.profile} --override {REPORTS / config.name / 'best.yaml'}\n"
        "puts it into params.yaml; `git diff params.yaml` shows what that changes."
    )
    return write_override(override(best.trial.values, config.experiment, config.iterations), comment)
