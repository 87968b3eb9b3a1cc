"""Mean and variance of the load of so many agents that M [N, N] is sparse and no covariance [N, N] can be filled."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, log
from typing import TYPE_CHECKING, Any

import numpy as np

from popcomm.errors import UserError
from popcomm.theory.checks import Array, numbers

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # trainings begin without it

PRECISION = 1e-12


def mean_load(rate: Any, M: csr_array) -> Array:
    """Transmissions in a step by source, (I - M^T)^-1 rate, as in `load_by_type`: rate [N], M [N, N] sparse -> [N].

    Raises:
        UserError: rate is not [N], or `radius_bound` is 1 or more: the load might grow without end.
    """
    total = np.zeros(M.shape[0])
    for fresh, least, most in _generations(M.T.tocsr(), M, rate, "rate"):
        total += fresh
        if most < 1 and _rest(most) - _rest(least) <= PRECISION:
            return total + _rest(least) * fresh
    return total


def load_variance(rate: Any, M: csr_array, heard: Any) -> float:
    """Variance of the transmissions in a step by the sources that are heard: rate, heard [N], M [N, N] sparse.

    heard is 1 where a source is heard and else 0; of the whole load, 1 everywhere. With the covariance C of
    `load_by_type` and q = rate + mean (M * (1 - M)), heard C heard is the sum over t of q . (M^t heard)^2.

    Raises:
        UserError: rate or heard is not [N], or `radius_bound` is 1 or more: the load might grow without end.
    """
    fresh = numbers(rate, "rate") + mean_load(rate, M) @ (M - M.multiply(M))
    total = 0.0
    for reach, least, most in _generations(M, M, heard, "heard"):
        term = float(fresh @ reach**2)
        total += term
        if most < 1 and term * (_rest(most**2) - _rest(least**2)) <= PRECISION * total:
            return total + term * _rest(least**2)
    return total


def radius_bound(M: csr_array) -> float:
    """A number that R = rho(M) does not pass, M [N, N] sparse: the largest column or row sum, exact for `local_rule`.

    Sources that nobody repeats as are in no cycle, and left out.
    """
    cycles = np.flatnonzero(M.sum(0))
    inner = M[cycles][:, cycles]
    return min(float(inner.sum(0).max()), float(inner.sum(1).max())) if len(cycles) else 0.0


def _generations(step: csr_array, M: csr_array, first: Any, what: str) -> Iterator[tuple[Array, float, float]]:
    """first, step first, step^2 first ..., each with the least and the largest ratio of the next to it.

    All that follow lie between powers of the two (Collatz 1942), so that a sum may be ended as soon as they agree. They
    come to an end where no sum of them could change any more.
    """
    values, bound, n = numbers(first, what), radius_bound(M), M.shape[0]
    if values.shape != (n,):
        raise UserError(f"{what} has shape {values.shape}, and must be [{n}]")
    if bound >= 1:
        raise UserError(f"the sums of M are up to {bound:.6g}, and must stay below 1, or the load may grow without end")
    # An entry is at most N times what it was when all began, times bound to the power of the generations since.
    for _ in range(2 + int((log(PRECISION) - 3 * log(n)) / log(max(bound, PRECISION)))):
        after = step @ values
        some = values > 0
        ratios = after[some] / values[some]
        if after[~some].any():
            yield values, 0.0, inf
        else:
            yield values, ratios.min(initial=inf) if some.any() else 0.0, ratios.max(initial=0.0)
        values = after


def _rest(ratio: float) -> float:
    """ratio + ratio^2 + ..."""
    return ratio / (1.0 - ratio)
