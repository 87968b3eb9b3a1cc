"""Checks of the numbers that a user gives, refused in words."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from popcomm.errors import UserError


def whole(key: str, value: Any, at_least: int) -> int:
    """The value, which must be a whole number.

    Raises:
        UserError: it is something else, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{key} is {value!r}, and must be a whole number")
    if value < at_least:
        raise UserError(f"{key} is {value}, and must be at least {at_least}")
    return int(value)


def not_negative(key: str, value: Any) -> float:
    """The value, which must be a finite number, at least 0.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{key} is {value!r}, and must be a number that is not negative")
    return float(value)
