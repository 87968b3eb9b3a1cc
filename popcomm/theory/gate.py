"""The gate of c11np: a bit string is a word if the number of its on bits lies between two bounds."""

from __future__ import annotations

from math import comb
from numbers import Integral
from typing import Any

from popcomm.errors import UserError

MOST_BITS = 64


def check_gate(bits: Any, min_on: Any, max_on: Any) -> None:
    """Refuse what is no gate.

    Raises:
        UserError: bits not in 1 ... 64, min_on below 1 (0 is silence, and never a word), min_on above max_on, or max_on
            above bits.
    """
    for key, value in (("bits", bits), ("min_on", min_on), ("max_on", max_on)):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise UserError(f"messages.{key} is {value!r}, and must be a whole number")
    if not 1 <= bits <= MOST_BITS:
        raise UserError(f"messages.bits is {bits}, and must be between 1 and {MOST_BITS}")
    if min_on < 1:
        raise UserError(f"messages.min_on is {min_on}, and must be at least 1: a word without on bits is silence")
    if min_on > max_on:
        raise UserError(f"messages.min_on is {min_on}, above messages.max_on = {max_on}; no word would pass the gate")
    if max_on > bits:
        raise UserError(f"messages.max_on is {max_on}, and must be at most messages.bits = {bits}")


def word_count(bits: int, min_on: int, max_on: int) -> int:
    """|W|, how many bit strings pass the gate: the sum of C(bits, i) for i from min_on to max_on.

    The share of all bit strings that pass is word_count / 2**bits.

    Raises:
        UserError: see `check_gate`.

    >>> word_count(32, 7, 9)
    41932956
    """
    check_gate(bits, min_on, max_on)
    return sum(comb(int(bits), i) for i in range(int(min_on), int(max_on) + 1))
