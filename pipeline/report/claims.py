"""The paper's claims, each decided (or not) by the runs at hand.

Verdicts of a profile that follows the paper's data and schedule: `reproduced`, `not reproduced`, `undecided`,
`not run`. Anywhere else the first three read `holds ...`, `does not hold ...` and `undecided ...` with the reason why
they do not reproduce the paper. What is only counted `agrees` or `differs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.report.counts import CountsByNetwork
from pipeline.report.evidence import Evidence, Sample
from pipeline.report.records import Run
from pipeline.settings.paper import SCHEDULE, Arm, Paper, PaperClaim
from pipeline.utils.statistics import (
    EQUIVALENCE_MARGIN,
    MINIMUM_SEEDS,
    Estimate,
    difference,
    equivalent,
    false_verdict_probability,
    holm,
    paired_binomial_error,
    seeds_needed,
    slope,
)

UNDECIDED, NOT_RUN = "undecided", "not run"
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
HOLDS, HOLDS_NOT = "holds", "does not hold"
AGREES, DIFFERS = "count agrees", "count differs"
NO_SPREAD = "every seed gives the same, so their spread is not known"
UNITS_OF_EFFECTS = {
    "slope": "difference of slopes in points for 10 % of noise",
    "response": "difference of relative responses",
}
COUNT_TOLERANCE = 0.02
"""Relative difference up to which a ratio of counts agrees with the printed, rounded one."""


@dataclass(frozen=True)
class Verdict:
    """A claim and what the runs say about it.

    Attributes:
        text: the verdict as text.
        outcome: True (holds), False (does not hold) or None (not decided).
        reason: what the outcome rests on, or why there is none.
        printed: the paper's own number.
        effect: what was measured: a difference of errors or slopes, an error, or a ratio of counts.
        samples: the arms that are compared.
        seeds_needed: about how many seeds would decide it, if effect and spread stay as they are.
        agreeing: seeds of which both arms exist and whose difference has the paper's sign, and all such seeds.
        adjusted_p: the p-value after Holm's adjustment for all claims of the report.
    """

    claim: PaperClaim
    text: str
    outcome: bool | None
    reason: str
    printed: float | None = None
    effect: Estimate | None = None
    samples: tuple[Sample, ...] = ()
    seeds_needed: int | None = None
    agreeing: tuple[int, int] | None = None
    adjusted_p: float | None = None

    @property
    def is_tested(self) -> bool:
        """Whether runs of this report bear on it: neither a count nor without runs."""
        return self.claim.kind != "ratio" and self.text != NOT_RUN

    @property
    def direction(self) -> str:
        """E.g. "in the paper's direction in 3 of 3 seeds"; empty where no seed has both arms."""
        return "" if self.agreeing is None else _direction(self.agreeing)

    @property
    def unit(self) -> str:
        """What `printed` and `effect` are, with their unit and the meaning of their sign."""
        if self.claim.kind in ("lower", "slope"):
            return f"{UNITS_OF_EFFECTS.get(self.quantity, 'difference in points')}; positive supports the claim"
        return "ratio of counts in %" if self.claim.kind == "ratio" else "error in %"

    @property
    def quantity(self) -> str:
        """Of what kind `printed` and `effect` are, for writing them."""
        return self.claim.kind if self.claim.kind in ("ratio", "slope") else self.claim.quantity

    @property
    def cell(self) -> str:
        """Its name for `trace`."""
        return f"claims/{self.claim.id}"

    @property
    def n(self) -> int:
        """Seeds behind the effect; none behind a count."""
        return self.effect.n if self.effect is not None and self.claim.kind != "ratio" else 0

    @property
    def seeds(self) -> str:
        """How many of the planned seeds its arms have."""
        return " / ".join(dict.fromkeys(sample.seeds for sample in self.samples))

    @property
    def marks(self) -> tuple[str, ...]:
        """What is to be said against the runs behind it."""
        return tuple(sorted({mark for sample in self.samples for mark in sample.marks}))


def _direction(agreeing: tuple[int, int]) -> str:
    agree, seeds = agreeing
    return f"in the paper's direction in {agree} of {seeds} seed{'' if seeds == 1 else 's'}"


def judge(evidence: Evidence, counts: CountsByNetwork, margin: float = EQUIVALENCE_MARGIN) -> list[Verdict]:
    """A verdict for every claim of the paper, in its order."""
    verdicts = [_judge(claim, evidence, counts, margin) for claim in evidence.paper.claims]
    p_values = {i: v.effect.p for i, v in enumerate(verdicts) if v.effect is not None and v.effect.p is not None}
    for index, p in zip(p_values, holm(list(p_values.values())), strict=True):
        verdicts[index] = replace(verdicts[index], adjusted_p=p)
    return verdicts


def any_false_verdict(verdicts: Sequence[Verdict]) -> float:
    """Probability of at least one false verdict if no tested claim were true and they were independent."""
    seeds = [v.n for v in verdicts if v.is_tested and v.claim.kind != "value" and v.n >= MINIMUM_SEEDS]
    return 1 - math.prod(1 - false_verdict_probability(n) for n in seeds)


def _judge(claim: PaperClaim, evidence: Evidence, counts: CountsByNetwork, margin: float) -> Verdict:
    if claim.kind == "ratio":
        return _ratio(claim, counts)
    dataset = claim.dataset or evidence.paper.table(claim.table).dataset
    if claim.dataset not in (None, *evidence.datasets) or (dataset != "imagenet" and not evidence.has_cifar_networks):
        return Verdict(claim, NOT_RUN, None, f"needs runs on {dataset}", claim.printed)
    if claim.kind == "value" and not evidence.is_reproduction:
        return Verdict(claim, NOT_RUN, None, f"needs runs on {dataset} at the paper's protocol", claim.printed)
    if claim.kind == "value":
        return _value(claim, evidence, margin)
    return _comparison(claim, evidence, margin)


def _comparison(claim: PaperClaim, evidence: Evidence, margin: float) -> Verdict:
    """A claim that one arm lies lower than the other; the effect is their difference, positive if it does."""
    lower, higher = (_sample(claim, arm, evidence) for arm in (claim.lower, claim.higher))
    printed = _printed_slopes(claim, evidence.paper) if claim.kind == "slope" else claim.printed
    if not lower.values or not higher.values:
        reason = f"pending: {_missing(claim, evidence) or 'no seed has every noise level'}"
        return Verdict(claim, NOT_RUN, None, reason, printed, samples=(lower, higher))
    effect = difference(higher.values, lower.values)
    outcome, reason = _decide(effect)
    if failed := _failed(lower, higher):
        outcome, reason = None, failed
    elif outcome is None and claim.kind == "lower" and claim.quantity.endswith("_error"):
        reason += _remarks(lower, higher, margin)
    return Verdict(
        claim,
        _wording(outcome, claim, evidence),
        outcome,
        reason + _noise_draws(claim, evidence, lower, higher),
        printed,
        effect,
        (lower, higher),
        _seeds_needed(effect),
        _agreeing(lower, higher),
    )


def _seeds_needed(effect: Estimate, factor: float = 1.0) -> int | None:
    unknown = effect.spread is None or effect.is_without_spread
    return None if unknown else seeds_needed(factor * effect.value, effect.spread or 0.0)


def _agreeing(lower: Sample, higher: Sample) -> tuple[int, int] | None:
    """Seeds whose difference has the paper's sign, and the seeds that both arms have; None where there are none."""
    both = lower.values.keys() & higher.values.keys()
    return (sum(higher.values[seed] > lower.values[seed] for seed in both), len(both)) if both else None


def _failed(*samples: Sample) -> str:
    """Which runs have diverged or are no better than guessing, as a reason for no verdict; empty without such runs."""
    diverged = dict.fromkeys(name for sample in samples for name in sample.diverged)
    at_chance = dict.fromkeys(name for sample in samples for name in sample.at_chance)
    found = {"diverged": diverged, "at chance": at_chance}
    return "; ".join(
        f"{what}, so that nothing is decided: {', '.join(names)}" for what, names in found.items() if names
    )


def _noise_draws(claim: PaperClaim, evidence: Evidence, *samples: Sample) -> str:
    """How many draws of the noisy labels are behind a claim about label noise, and what the other draws say."""
    draws: dict[int, set[str]] = {}
    for sample in samples:
        for run in sample.runs:
            if run.noise:
                draws.setdefault(run.noise, set()).add(str(run.config["data"].get("noise_checksum")))
    if not draws:
        return ""
    most = max(map(len, draws.values()))
    text = "; all seeds share one draw of the noisy labels" if most == 1 else f"; {most} draws of the noisy labels"
    for draw, other in evidence.other_draws.items():
        agreeing = _agreeing(*(_sample(claim, arm, other) for arm in (claim.lower, claim.higher)))
        if agreeing is not None:
            text += f"; with draw {draw} {_direction(agreeing)}"
    return text


def _sample(claim: PaperClaim, arm: Arm, evidence: Evidence) -> Sample:
    """One arm of a comparison: a quantity of one experiment, or a slope over several."""
    if isinstance(arm, Mapping):
        return evidence.slopes(arm)
    return evidence.sample(str(arm), claim.quantity, claim.stage)


def _missing(claim: PaperClaim, evidence: Evidence) -> str:
    """Experiments of a claim that have no run."""
    arms = [arm.values() if isinstance(arm, Mapping) else [str(arm)] for arm in (claim.lower, claim.higher)]
    names = [name for arm in arms for name in arm]
    return ", ".join(name for name in names if not evidence.sample(name, claim.quantity, claim.stage).values)


def _printed_slopes(claim: PaperClaim, paper: Paper) -> float:
    """Slope of the paper's own numbers for the higher arm, less that for the lower one."""
    cells = [cell for row in paper.table(claim.table).rows for cell in row.cells.values()]
    printed = {cell.experiment: cell.printed or 0.0 for cell in cells}
    arms = [arm for arm in (claim.higher, claim.lower) if isinstance(arm, Mapping)]
    first, second = (slope(list(arm), [printed[name] for name in arm.values()]) for arm in arms)
    return first - second


def _decide(effect: Estimate) -> tuple[bool | None, str]:
    """The rule: at least three seeds, and an interval no wider than the effect."""
    if effect.n < MINIMUM_SEEDS:
        return None, f"fewer than {MINIMUM_SEEDS} seeds"
    if effect.is_without_spread:
        return None, NO_SPREAD
    if effect.width > abs(effect.value):
        return None, "the interval is wider than the effect"
    return effect.value > 0, f"by {effect.method}{_p_value(effect.p)}"


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    return ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"


def _remarks(lower: Sample, higher: Sample, margin: float) -> str:
    """What can still be said of two errors whose order is not decided."""
    if equivalent(higher.values, lower.values, margin):
        return f"; the two are equal within {margin:g} points"
    if len(lower.values) == len(higher.values) == 1 and (error := _paired_error(lower.runs[0], higher.runs[0])):
        return f"; sampling error alone: ±{error:.2f} points"
    errors = [sample.binomial_error for sample in (lower, higher)]
    if None in errors:
        return ""
    error = math.hypot(*(error for error in errors if error is not None))
    return f"; sampling error alone: ±{error:.2f} points, as if on different test images"


def _paired_error(first: Run, second: Run) -> float | None:
    """Standard error, in points, of the difference of two errors on the same test images.

    None where it is not known which images each run got wrong.
    """
    same_data = first.config["data"]["checksum"] == second.config["data"]["checksum"]
    mistakes = [run.mistakes for run in (first, second)]
    if not same_data or mistakes[0] is None or mistakes[1] is None:
        return None
    return paired_binomial_error(mistakes[0], mistakes[1])


def _value(claim: PaperClaim, evidence: Evidence, margin: float) -> Verdict:
    """A claim that a printed error is reached: the measured mean lies within the margin, or below."""
    sample = evidence.sample_of(str(claim.dataset), str(claim.experiment), claim.quantity)
    measured = sample.estimate
    if measured is None or claim.printed is None:
        reason = f"pending: {claim.experiment}"
        return Verdict(claim, NOT_RUN, None, reason, claim.printed, samples=(sample,))
    above = measured.shifted(claim.printed + margin)
    outcome: bool | None = None
    reason = f"the interval reaches across the margin of {margin:g} points"
    if above.low is None or above.high is None or above.n < MINIMUM_SEEDS:
        reason = f"fewer than {MINIMUM_SEEDS} seeds"
    elif failed := _failed(sample):
        reason = failed
    elif above.is_without_spread:
        reason = NO_SPREAD
    elif above.high < 0:
        outcome, reason = True, f"at most {margin:g} points above the printed number"
    elif above.low > 0:
        outcome, reason = False, f"more than {margin:g} points above the printed number"
    # Half of the interval has to be no wider than the way to the margin.
    needed = _seeds_needed(above, 2.0)
    text = _wording(outcome, claim, evidence)
    return Verdict(claim, text, outcome, reason, claim.printed, measured, (sample,), needed)


def _ratio(claim: PaperClaim, counts: CountsByNetwork) -> Verdict:
    """A ratio of counts in percent, which no run is needed for."""
    network, reference = counts.get(str(claim.network)), counts.get(str(claim.reference))
    if network is None or reference is None or claim.printed is None or not reference.of(claim.quantity):
        return Verdict(claim, NOT_RUN, None, "pending: the counts of both networks", claim.printed)
    ratio = 100 * network.of(claim.quantity) / reference.of(claim.quantity)
    agrees = abs(ratio / claim.printed - 1) <= COUNT_TOLERANCE
    reason = f"counted, needs no training; tolerance {100 * COUNT_TOLERANCE:g} % of the printed ratio"
    return Verdict(claim, AGREES if agrees else DIFFERS, agrees, reason, claim.printed, Estimate(ratio, 1))


def _wording(outcome: bool | None, claim: PaperClaim, evidence: Evidence) -> str:
    dataset = claim.dataset or evidence.paper.table(claim.table).dataset
    if evidence.is_reproduction and evidence.datasets == [dataset]:
        return {True: REPRODUCED, False: NOT_REPRODUCED, None: UNDECIDED}[outcome]
    word = {True: HOLDS, False: HOLDS_NOT, None: UNDECIDED}[outcome]
    return f"{word} {_setting(evidence)}"


def _setting(evidence: Evidence) -> str:
    """Why a result of this profile is not a reproduction, as the end of a verdict."""
    label = evidence.plan.label
    data = " and ".join(evidence.datasets)
    if label.standin:
        return f"on stand-in data ({data})"
    if label.schedule != "full" or set(evidence.deviations) & set(SCHEDULE):
        return f"under another schedule than the paper's ({data})"
    if evidence.deviations:
        return f"with another {', '.join(evidence.deviations)} than the paper's ({data})"
    return f"on other data than the paper's ({data})"
