"""Checks of the numbers and choices that a user gives: each returns the value, or says what is wrong with it.

A sentence is "key is value, and must ...", where `must` says what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from popcomm.errors import UserError, nearest, unknown


def whole(key: str, value: Any, at_least: float = -math.inf) -> int:
    """The value, which must be a whole number.

    Raises:
        UserError: it is something else, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{key} is {value!r}, and must be a whole number")
    if value < at_least:
        raise UserError(f"{key} is {value}, and must be at least {at_least}")
    return int(value)


def count(key: str, value: Any, at_least: int) -> int:
    """The value, which must be a whole number of at least so many, said in one sentence. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise UserError(f"{key} is {value!r}, and must be a whole number of at least {at_least}")
    return int(value)


def number(
    key: str,
    value: Any,
    must: str = "be a number",
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """The value, which must be a number within its bounds; `above` and `below` are not allowed themselves.

    Raises:
        UserError: it is something else, or beyond; the sentence ends with `must`.
    """
    if not _is_number(value):
        raise UserError(f"{key} is {value!r}, and must {must}")
    try:
        given = float(value)
    except OverflowError:  # whole numbers may be larger than any float
        given = math.inf if value > 0 else -math.inf
    beyond = (above is not None and given <= above) or (below is not None and given >= below)
    if beyond or not least <= given <= most:  # true for NaN also
        raise UserError(f"{key} is {value!r}, and must {must}")
    return given


def finite(key: str, value: Any) -> float:
    """The value, which must be a finite number. Raises UserError."""
    return number(key, value, "be a finite number", above=-math.inf, below=math.inf)


def not_negative(key: str, value: Any) -> float:
    """The value, which must be a finite number, at least 0. Raises UserError."""
    return number(key, value, "be a number that is not negative", least=0.0, below=math.inf)


def at_least_zero(key: str, value: Any) -> float:
    """The value, which must be a finite number, at least 0, said in the theory's words. Raises UserError."""
    return number(key, value, "be a number of at least 0", least=0.0, below=math.inf)


def positive(key: str, value: Any) -> float:
    """The value, which must be a finite number above 0. Raises UserError."""
    not_negative(key, value)
    return number(key, value, "be above 0", above=0.0)


def between(key: str, value: Any, low: float, high: float) -> float:
    """The value, which must be a number from low to high. Raises UserError."""
    return number(key, value, f"be between {low:g} and {high:g}", least=low, most=high)


def share(key: str, value: Any) -> float:
    """The value, which must be a number from 0 to 1. Raises UserError."""
    return number(key, value, "lie in [0, 1]", least=0, most=1)


def true_or_false(key: str, value: Any) -> bool:
    """The value, which must be True or False: 1 and "yes" are neither. Raises UserError."""
    if not isinstance(value, bool):
        raise UserError(f"{key} is {value!r}, and must be true or false")
    return value


def one_of(key: str, value: Any, allowed: Collection[str]) -> str:
    """The value, which must be one of those allowed. Raises UserError, which names the nearest."""
    if value not in allowed:
        raise UserError(f"{key} is {value!r}; {nearest(str(value), allowed)}")
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def mapping(key: str, value: Any, keys: Iterable[str], between: str = ", ") -> Mapping[str, Any]:
    """The value, which must be a mapping with no other keys than these.

    Raises:
        UserError: it is something else, or has another key.
    """
    known = tuple(keys)
    if not isinstance(value, Mapping):
        raise UserError(f"{key} is {value!r}, and must be a mapping with {between.join(known)}")
    for name in value:
        if name not in known:
            raise unknown(f"{key}: the key", str(name), known)
    return value
