"""The options of the attention networks, named as in the paper (arXiv:1704.06904, sections 3.1 to 3.3, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

MOST_UNITS: Final = 16
"""The largest p, t and r; the paper has 1, 2 and 1."""
MOST_PIXELS: Final = 4096
"""The largest height and width of an image."""

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "learning": ("arl", "nal"),
    "activation": ("mixed", "channel", "spatial"),
    "mask": ("encoder_decoder", "local"),
}


@dataclass(frozen=True)
class AttentionOptions:
    """How an attention module is built. The defaults are the paper's.

    Attributes:
        learning: "arl", attention residual learning, H = (1 + M) * T; or "nal", naive attention learning, H = M * T.
        activation: activation of the mask: "mixed" f1, "channel" f2 or "spatial" f3 (Table 1).
        mask: "encoder_decoder", or "local": three residual units at full resolution (Table 4).
        p: residual units before the split into trunk and mask, and again after their fusion.
        t: residual units in the trunk.
        r: residual units between adjacent poolings of the mask; no effect in a mask with fewer than two poolings.
    """

    learning: str = "arl"
    activation: str = "mixed"
    mask: str = "encoder_decoder"
    p: int = 1
    t: int = 2
    r: int = 1

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(allowed)}")
        for name in ("p", "t", "r"):
            check_integer(name, getattr(self, name), 1, MOST_UNITS)

    def updated(self, **changes: Any) -> AttentionOptions:
        """Return a copy with some options changed; ValueError for a wrong value."""
        return replace(self, **changes)


def check_integer(name: str, value: object, least: int, most: int = 2**31 - 1) -> None:
    """Raise ValueError unless `value` is an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: {value!r:.80} is not an integer of at least {least}")
    if value > most:
        raise ValueError(f"{name}: {value!r:.80} is above {most}")


OPTION_NAMES: Final = tuple(field.name for field in fields(AttentionOptions))
