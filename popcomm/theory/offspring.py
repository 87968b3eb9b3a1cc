"""The offspring of a transmission: how many of the agents that hear it send it again."""

from __future__ import annotations

from typing import Any

import numpy as np

from popcomm.theory.checks import Array, probabilities

# Rounding of the p_i that a user means to sum to 1, e.g. ten times 0.1, in units of 1.
CRITICAL = 4 * float(np.finfo(np.float64).eps)


def offspring_pmf(p: Any) -> Array:
    """P(X = x) of the Poisson binomial offspring, p [..., N] -> [..., N + 1].

    One agent after the other is convolved in: all terms are positive, so that small probabilities keep their digits.

    Raises:
        UserError: p is not [..., N] in [0, 1].
    """
    p = probabilities(p)
    distribution = np.zeros((*p.shape[:-1], p.shape[-1] + 1))
    distribution[..., 0] = 1.0
    for i in range(p.shape[-1]):
        again = p[..., i, None]
        repeated = distribution[..., : i + 1] * again
        distribution[..., : i + 1] *= 1.0 - again
        distribution[..., 1 : i + 2] += repeated
    return distribution


def offspring_moments(p: Any) -> tuple[Array, Array]:
    """Mean m = sum p_i and variance s2 = sum p_i (1 - p_i) of the offspring, p [..., N] -> [...], [...].

    Raises:
        UserError: p is not [..., N] in [0, 1].
    """
    p = probabilities(p)
    return p.sum(-1), (p * (1.0 - p)).sum(-1)


def excess(p: Array) -> Array:
    """m - 1, p [..., N] -> [...], rounded once; 0 where it is no more than rounding.

    The running sum and, from it, its rounding errors (the two-sum of Knuth, TAOCP 2, 4.2.2).
    """
    terms = np.concatenate([np.full((*p.shape[:-1], 1), -1.0), p], -1)
    total = np.cumsum(terms, -1)
    before, after = total[..., :-1], total[..., 1:]
    added = after - before
    lost = (before - (after - added)) + (p - added)
    result = total[..., -1] + lost.sum(-1)
    return np.where(np.abs(result) <= CRITICAL, 0.0, result)


def union(x: Array) -> Array:
    """1 - prod(1 - x_i), x [..., N] -> [...], real or complex: the chance that one at least of N events happens.

    In pairs, u + v - u v: no product near 1 is formed, so small chances keep their digits.
    """
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        x = np.concatenate([first + second * (1.0 - first), rest], -1)
    return x[..., 0]
