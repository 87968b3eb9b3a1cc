"""What the theory's functions ask of their arguments, refused in words."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.errors import UserError

Array = NDArray[Any]


def probabilities(value: Any, what: str = "p") -> Array:
    """[..., N] float64, N >= 1, each in [0, 1]."""
    p = numbers(value, what)
    if p.ndim < 1 or p.shape[-1] < 1:
        raise UserError(f"{what} has shape {p.shape}, and must be [..., N] with a number for each of N >= 1 agents")
    return _within(p, what)


def matrix(value: Any, what: str = "M") -> Array:
    """[..., N, N] float64, N >= 1, each in [0, 1]."""
    entries = numbers(value, what)
    if entries.ndim < 2 or entries.shape[-1] != entries.shape[-2] or entries.shape[-1] < 1:
        raise UserError(f"{what} has shape {entries.shape}, and must be [..., N, N] with N >= 1")
    return _within(entries, what)


def whole_numbers(value: Any, what: str) -> NDArray[np.int64]:
    """A whole number or an array of them, none below 0."""
    given = np.asarray(value)
    if given.dtype.kind not in "iu" or (given < 0).any():
        raise UserError(f"{what} is {value!r}, and must be a whole number of at least 0, or an array of them")
    return given.astype(np.int64)


def positive_int(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UserError(f"{what} is {value!r}, and must be a whole number of at least 1")
    return int(value)


def at_least_zero(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise UserError(f"{what} is {value!r}, and must be a number of at least 0")
    return float(value)


def share(value: Any, what: str, low: float = 0.0, high: float = 1.0) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise UserError(f"{what} is {value!r}, and must be between {low:g} and {high:g}")
    return float(value)


def numbers(value: Any, what: str) -> Array:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} is {value!r}, and must be numbers in a regular array") from None


def _within(values: Array, what: str) -> Array:
    wrong = ~((values >= 0) & (values <= 1))  # true for NaN also
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = ", ".join(map(str, where))
        raise UserError(f"{what}[{place}] is {values[where]}, and a probability is between 0 and 1")
    return values
