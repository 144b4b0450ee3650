"""The paper's claims, each decided (or not) by the runs at hand.

Verdicts of a profile that follows the paper's data and schedule: `reproduced`, `not reproduced`, `undecided`,
`not run`. Anywhere else the first two read `holds ...` and `does not hold ...` with the reason why they are no
reproduction. What is only counted `agrees` or `differs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.report.counts import Counts
from pipeline.report.evidence import Evidence, Sample
from pipeline.report.paper import Arm, PaperClaim, PaperTable
from pipeline.report.statistics import (
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
AGREES, DIFFERS = "count agrees", "count differs"
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
    seeds: str = ""
    seeds_needed: int | None = None
    marks: tuple[str, ...] = ()

    @property
    def quantity(self) -> str:
        """Of what kind `printed` and `effect` are, for writing them."""
        return "ratio" if self.claim.kind == "ratio" else self.claim.quantity


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
    lower, higher = (_arm(claim, arm, evidence) for arm in (claim.lower, claim.higher))
    printed = claim.printed
    if claim.kind == "slope":
        printed = _printed_slopes(claim, evidence.paper.table(claim.table))
    seeds = " / ".join(dict.fromkeys(sample.seeds for sample in (*lower, *higher)))
    if not all(sample.values for sample in (*lower, *higher)):
        missing = [sample.experiment for sample in (*lower, *higher) if not sample.values]
        reason = f"pending: {', '.join(missing)}"
        return Verdict(claim, NOT_RUN, None, reason, printed, seeds=seeds)
    above, below = _by_seed(claim, higher), _by_seed(claim, lower)
    if not above or not below:
        return Verdict(claim, NOT_RUN, None, "pending: no seed has every noise level", printed, seeds=seeds)
    effect = difference(above, below)
    outcome, reason = _decide(effect, margin if claim.quantity == "test_error" else None)
    errors = [sample.binomial_error for sample in (*lower, *higher) if sample.binomial_error is not None]
    if claim.kind == "lower" and len(errors) == 2:
        reason += f"; its test images alone give it a standard error of {math.hypot(*errors):.2f} points"
    needed = None if effect.spread is None else seeds_needed(effect.value, effect.spread)
    marks = tuple(sorted({mark for sample in (*lower, *higher) for mark in sample.marks}))
    text = _wording(outcome, claim, evidence)
    return Verdict(claim, text, outcome, reason, printed, effect, seeds, needed, marks)


def _arm(claim: PaperClaim, arm: Arm, evidence: Evidence) -> list[Sample]:
    return [evidence.sample(name, claim.quantity, claim.stage) for name in _by_level(arm).values()]


def _by_level(arm: Arm) -> dict[int, str]:
    """Experiments of an arm by noise level; a single one stands at none."""
    return {0: arm} if isinstance(arm, str) else dict(arm or {})


def _by_seed(claim: PaperClaim, samples: list[Sample]) -> dict[int, float]:
    """An arm's value by seed: its one quantity, or its slope over the noise levels for seeds that have all."""
    if claim.kind == "lower":
        return dict(samples[0].values)
    levels = list(_by_level(claim.lower))
    seeds = set.intersection(*(set(sample.values) for sample in samples))
    return {seed: slope(levels, [sample.values[seed] for sample in samples]) for seed in sorted(seeds)}


def _printed_slopes(claim: PaperClaim, table: PaperTable) -> float:
    """Slope of the paper's own numbers for the higher arm, less that for the lower one."""
    printed = {cell.experiment: cell.printed or 0.0 for row in table.rows for cell in row.cells.values()}
    arms = [_by_level(arm) for arm in (claim.higher, claim.lower)]
    first, second = (slope(list(arm), [printed[name] for name in arm.values()]) for arm in arms)
    return first - second


def _decide(effect: Estimate, margin: float | None) -> tuple[bool | None, str]:
    """The rule: at least three seeds, and an interval no wider than the effect."""
    if effect.n < MINIMUM_SEEDS:
        return None, f"fewer than {MINIMUM_SEEDS} seeds"
    if effect.width > abs(effect.value):
        reason = "the interval is wider than the effect"
        if margin is not None and equivalent(effect, margin):
            reason += f"; the two are equal within {margin:g} points"
        return None, reason
    return effect.value > 0, f"interval by {effect.method}"


def _value(claim: PaperClaim, evidence: Evidence, margin: float) -> Verdict:
    """A claim that a printed error is reached: the measured mean lies within the margin, or below."""
    sample = evidence.sample_of(str(claim.dataset), str(claim.experiment), claim.quantity)
    measured = sample.estimate
    if measured is None or claim.printed is None:
        return Verdict(claim, NOT_RUN, None, f"pending: {claim.experiment}", claim.printed, seeds=sample.seeds)
    bound = claim.printed + margin
    outcome: bool | None = None
    reason = f"the interval reaches across the margin of {margin:g} points"
    if measured.low is None or measured.high is None or measured.n < MINIMUM_SEEDS:
        reason = f"fewer than {MINIMUM_SEEDS} seeds"
    elif measured.high < bound:
        outcome, reason = True, f"at most {margin:g} points above the printed number"
    elif measured.low > bound:
        outcome, reason = False, f"more than {margin:g} points above the printed number"
    text = _wording(outcome, claim, evidence)
    return Verdict(claim, text, outcome, reason, claim.printed, measured, sample.seeds, marks=sample.marks)


def _ratio(claim: PaperClaim, counts: Counts) -> Verdict:
    """A ratio of counts in percent, which no run is needed for."""
    network, reference = counts.get(str(claim.network)), counts.get(str(claim.reference))
    if network is None or reference is None or claim.printed is None:
        return Verdict(claim, NOT_RUN, None, "pending: the counts of both networks", claim.printed)
    ratio = 100 * network.of(claim.quantity) / reference.of(claim.quantity)
    agrees = abs(ratio / claim.printed - 1) <= COUNT_TOLERANCE
    reason = f"counted, needs no training; tolerance {100 * COUNT_TOLERANCE:g} % of the printed ratio"
    return Verdict(claim, AGREES if agrees else DIFFERS, agrees, reason, claim.printed, Estimate(ratio, 1))


def _wording(outcome: bool | None, claim: PaperClaim, evidence: Evidence) -> str:
    if outcome is None:
        return UNDECIDED
    dataset = claim.dataset or evidence.paper.table(claim.table).dataset
    if evidence.is_reproduction and evidence.datasets == [dataset]:
        return REPRODUCED if outcome else NOT_REPRODUCED
    return f"{'holds' if outcome else 'does not hold'} {_setting(evidence)}"


def _setting(evidence: Evidence) -> str:
    """Why a result of this profile is no reproduction, as the end of a verdict."""
    labels = evidence.plan["labels"]
    data = " and ".join(evidence.datasets)
    if labels["standin"]:
        return f"on stand-in data ({data})"
    if not evidence.is_reproduction:
        return f"under another schedule than the paper's ({data})"
    return f"on other data than the paper's ({data})"
