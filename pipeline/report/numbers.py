"""How numbers are written: as many digits as their quantity is known to, the same in every form of the report."""

from __future__ import annotations

import math

from pipeline.settings.paper import Printed
from pipeline.utils.statistics import Estimate

_DECIMALS = {"test_error": 2, "top5_error": 2, "parameters": 2, "multiply_adds": 2, "depth": 0}
PENDING = "pending"
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def number(value: float | None, quantity: str = "test_error", sign: bool = False) -> str:
    """A value of a quantity; a dash for None. Ratios of responses get three significant digits."""
    if value is None or math.isnan(value):
        return DASH
    plus = "+" if sign else ""
    if quantity == "response":
        decimals = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return _minus(f"{value:{plus}.{min(decimals, 6)}f}")
    return _minus(f"{value:{plus}.{_DECIMALS.get(quantity, 2)}f}")


def printed(value: float | None, quantity: str = "test_error") -> str:
    """A number of the paper with the digits that it has there; one computed from several as others are."""
    if value is None:
        return DASH
    if isinstance(value, Printed):
        return _minus(str(value))
    if quantity.endswith("_error") or quantity == "slope":
        return _minus(f"{value:.2f}")
    return f"{value:g}" if quantity in ("depth", "response") else f"{value:.1f}"


def interval(estimate: Estimate | None, quantity: str = "test_error") -> str:
    """`[low, high]`, or nothing where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, quantity)}, {number(estimate.high, quantity)}]"


def thousands(value: float) -> str:
    """An integer with separators."""
    return f"{int(value):,}"


def _minus(text: str) -> str:
    """A typographic minus sign, and no negative zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", MINUS)
