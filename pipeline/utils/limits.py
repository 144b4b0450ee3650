"""Limits of values, by `annotated_types`; a machine that only trains has neither it nor pydantic and checks nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annotated_types import Ge, Gt, Le, Len, Lt
else:
    try:
        from annotated_types import Ge, Gt, Le, Len, Lt
    except ModuleNotFoundError:

        def _unchecked(*_limits: Any) -> None:
            return None

        Ge = Gt = Le = Len = Lt = _unchecked

__all__ = ["Ge", "Gt", "Le", "Len", "Lt"]
