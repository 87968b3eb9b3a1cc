"""How likely random bits are to be a word."""

from __future__ import annotations

from math import comb

from popcomm.checks import between
from popcomm.theory.gate import check_gate, word_count


def word_probability(bits: int, min_on: int, max_on: int, bit_probability: float = 0.5) -> float:
    """The chance that independent bits, each on with `bit_probability`, pass the gate.

    The terms of the binomial distribution are all positive, so the sum keeps the precision of a double.

    Raises:
        UserError: no such gate (`popcomm.theory.gate.check_gate`), or bit_probability outside [0, 1].

    >>> round(word_probability(32, 7, 9), 5)
    0.00976
    """
    check_gate(bits, min_on, max_on)
    q = between("bit_probability", bit_probability, 0, 1)
    if q == 0.5:
        return word_count(bits, min_on, max_on) / 2**bits
    return min(1.0, sum(comb(bits, i) * q**i * (1 - q) ** (bits - i) for i in range(min_on, max_on + 1)))
