"""The paper's claims, each decided (or not) by the runs at hand.

Verdicts of a profile that follows the paper's data and schedule: `reproduced`, `not reproduced`, `undecided`,
`not run`. Anywhere else the first three read `holds ...`, `does not hold ...` and `undecided ...` with the reason why
they are no reproduction. What is only counted `agrees` or `differs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.counts import Counts
from pipeline.report.evidence import Evidence, Sample
from pipeline.settings.paper import SCHEDULE, Arm, Paper, PaperClaim
from pipeline.utils.statistics import (
    EQUIVALENCE_MARGIN,
    MINIMUM_SEEDS,
    Estimate,
    difference,
    equivalent,
    seeds_needed,
    slope,
)

UNDECIDED, NOT_RUN = "undecided", "not run"
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
HOLDS, HOLDS_NOT = "holds", "does not hold"
AGREES, DIFFERS = "count agrees", "count differs"
NO_SPREAD = "every seed gives the same, so their spread is not known"
COUNT_TOLERANCE = 0.02
"""Relative difference up to which a ratio of counts agrees with the printed, rounded one."""


@dataclass(frozen=True)
class Verdict:
    """A claim with its outcome: `outcome` is True (holds), False (does not hold) or None (nothing decided).

    `effect` is what was measured of the claim: a difference of errors or slopes, an error, or a ratio of counts.
    """

    claim: PaperClaim
    text: str
    outcome: bool | None
    reason: str
    printed: float | None = None
    effect: Estimate | None = None
    samples: tuple[Sample, ...] = ()
    seeds_needed: int | None = None

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


def judge(evidence: Evidence, counts: Counts, margin: float = EQUIVALENCE_MARGIN) -> list[Verdict]:
    """A verdict for every claim of the paper, in its order."""
    return [_judge(claim, evidence, counts, margin) for claim in evidence.paper.claims]


def _judge(claim: PaperClaim, evidence: Evidence, counts: Counts, margin: float) -> Verdict:
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
    if outcome is None and claim.kind == "lower" and claim.quantity.endswith("_error"):
        reason += _remarks(lower, higher, margin)
    needed = None if effect.spread is None or _without_spread(effect) else seeds_needed(effect.value, effect.spread)
    return Verdict(claim, _wording(outcome, claim, evidence), outcome, reason, printed, effect, (lower, higher), needed)


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
    if _without_spread(effect):
        return None, NO_SPREAD
    if effect.width > abs(effect.value):
        return None, "the interval is wider than the effect"
    return effect.value > 0, f"by {effect.method}{_p_value(effect.p)}"


def _without_spread(effect: Estimate) -> bool:
    """Whether all seeds agree but for rounding: on few test images a coincidence, and no measure of their spread."""
    return effect.spread is not None and effect.spread < 1e-9


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    return ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"


def _remarks(lower: Sample, higher: Sample, margin: float) -> str:
    """What can still be said of two errors whose order is not decided."""
    if equivalent(higher.values, lower.values, margin):
        return f"; the two are equal within {margin:g} points"
    errors = [sample.binomial_error for sample in (lower, higher)]
    if None in errors:
        return ""
    error = math.hypot(*(error for error in errors if error is not None))
    return f"; its test images alone give it a standard error of {error:.2f} points"


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
    elif _without_spread(above):
        reason = NO_SPREAD
    elif above.high < 0:
        outcome, reason = True, f"at most {margin:g} points above the printed number"
    elif above.low > 0:
        outcome, reason = False, f"more than {margin:g} points above the printed number"
    # Half of the interval has to be no wider than the way to the margin.
    needed = None if above.spread is None or _without_spread(above) else seeds_needed(2 * above.value, above.spread)
    text = _wording(outcome, claim, evidence)
    return Verdict(claim, text, outcome, reason, claim.printed, measured, (sample,), needed)


def _ratio(claim: PaperClaim, counts: Counts) -> Verdict:
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
    """Why a result of this profile is no reproduction, as the end of a verdict."""
    label = evidence.plan.label
    data = " and ".join(evidence.datasets)
    if label.standin:
        return f"on stand-in data ({data})"
    if label.schedule != "full" or set(evidence.deviations) & set(SCHEDULE):
        return f"under another schedule than the paper's ({data})"
    if evidence.deviations:
        return f"with another {', '.join(evidence.deviations)} than the paper's ({data})"
    return f"on other data than the paper's ({data})"
