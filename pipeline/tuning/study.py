"""Optuna, given the trials of a search folder: the next trial, and the importance of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from pipeline.tuning.space import Range, Space, Value, Values
from pipeline.tuning.trials import Progress

RANDOM_TRIALS = 5  # drawn at random before the sampler trusts what it has seen
ATTEMPTS, GUIDED = 100, 10  # to draw a setting that was not tried yet; how many of them by the sampler
STATES = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The parameters of a space, as Optuna has them."""
    found: dict[str, BaseDistribution] = {}
    for name, parameter in space.parameters.items():
        if not isinstance(parameter, Range):
            found[name] = CategoricalDistribution(parameter.choices)
        elif parameter.is_integer:
            found[name] = IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
        else:
            found[name] = FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.log)
    return found


class Suggestions:
    """Which settings to try next, by the tree-structured Parzen estimator.

    Optuna's study is kept in memory; it is rebuilt from the trials that have ended when a search continues, so it knows
    what they reached though not the draws that it had made.
    """

    def __init__(self, space: Space, seed: int, earlier: Sequence[Progress], baseline: Values | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._distributions = space, distributions(space)
        self._guided = optuna.samplers.TPESampler(seed=seed + len(earlier), n_startup_trials=RANDOM_TRIALS)
        self._random = optuna.samplers.RandomSampler(seed=seed + len(earlier))
        self._study = optuna.create_study(sampler=self._guided)
        self._asked: dict[int, optuna.Trial] = {}
        self._tried = {_key(progress.trial.values) for progress in earlier}
        for progress in earlier:
            if progress.trial.state in STATES:
                self._study.add_trial(_frozen(progress, self._distributions))
        if baseline is not None and _key(baseline) not in self._tried:
            self._study.enqueue_trial(dict(baseline))

    def ask(self, number: int) -> dict[str, Value] | None:
        """Values for a trial, none twice; None when the space seems to hold no others."""
        for attempt in range(ATTEMPTS):
            self._study.sampler = self._guided if attempt < GUIDED else self._random
            asked = self._study.ask(self._distributions)
            values = {name: self._space.parameters[name].tidy(value) for name, value in asked.params.items()}
            if _key(values) not in self._tried:
                self._tried.add(_key(values))
                self._asked[number] = asked
                return values
            self._study.tell(asked, state=TrialState.FAIL)
        return None

    def tell(self, progress: Progress) -> None:
        """How a trial has ended."""
        asked = self._asked.pop(progress.trial.number, None)
        if asked is None:  # asked for before the search was interrupted
            self._study.add_trial(_frozen(progress, self._distributions))
            return
        for row in progress.rows:
            asked.report(row.test_error, row.iteration)
        state = STATES[progress.trial.state]
        self._study.tell(asked, progress.error if state == TrialState.COMPLETE else None, state)


def _key(values: Values) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))


def _frozen(progress: Progress, space: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    """An ended trial as Optuna keeps it."""
    state = STATES[progress.trial.state]
    reported = {row.iteration: row.test_error for row in progress.rows}
    value = progress.error if state == TrialState.COMPLETE else None
    if state == TrialState.PRUNED and reported:
        value = reported[max(reported)]
    return create_trial(
        state=state,
        value=value,
        params=dict(progress.trial.values),
        distributions=dict(space),
        intermediate_values=reported,
    )


def study_of(space: Space, measured: Sequence[tuple[Values, float]]) -> optuna.Study:
    """Return a study in memory of trials with their errors."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for values, error in measured:
        study.add_trial(create_trial(value=error, params=dict(values), distributions=distributions(space)))
    return study


def evaluator() -> optuna.importance.FanovaImportanceEvaluator:
    """Return what measures the importance of parameters: functional ANOVA, the same for equal trials."""
    return optuna.importance.FanovaImportanceEvaluator(seed=0)
