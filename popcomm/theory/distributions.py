"""Distributions of whole numbers with heavy tails, in the manner of scipy's frozen ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from popcomm.errors import UserError
from popcomm.theory.checks import Array
from popcomm.theory.tails import NOTHING, SmoothTail

SHORTEST_TABLE, LONGEST_TABLE = 256, 2**18
SMOOTH_WIDTH = 30.0
CHUNK_ROWS = 2**13


class CountDistribution:
    """Base: a distribution on start, start + 1, ... with total mass `mass` <= 1; what is missing sits on infinity.

    cdf(k) rises to `mass`, sf = 1 - cdf falls to 1 - mass, and ppf(q) is inf for q >= mass. A subclass has `_log_pmf`
    and `_variance`.

    Probabilities are kept in a table up to where the pmf is smooth; beyond, sums are integrals over panels with the
    end corrections of Euler and Maclaurin, so that tails have the relative precision of the pmf at any distance.
    """

    # The variance of all offspring above which `_log_pmf` takes real k.
    _real_from = 0.0

    def __init__(self, start: int, mass: float, mean: float, var: float) -> None:
        self._start, self._mass, self._mean, self._var = start, mass, mean, var

    def _log_pmf(self, k: Array) -> Array:
        """k [K] float64 >= start, whole; real where the distribution is smooth."""
        raise NotImplementedError

    def _variance(self, k: Array) -> Array:
        """Of the number of offspring of one ancestor, given k descendants: how wide the distribution is near k."""
        raise NotImplementedError

    def pmf(self, k: Any) -> Any:
        """P(Z = k), any shape; 0 where k is not whole or outside the support."""
        return np.exp(self.logpmf(k))

    def logpmf(self, k: Any) -> Any:
        """log P(Z = k), any shape; also where P(Z = k) is below the least double."""
        k = np.asarray(k, dtype=np.float64)
        flat = k.reshape(-1)
        result = np.full(flat.shape, -np.inf)
        inside = (flat >= self._start) & (flat == np.floor(flat)) & np.isfinite(flat)
        if inside.any():
            values, where = np.unique(flat[inside], return_inverse=True)
            result[inside] = self._log_pmf(values)[where]
        return _shaped(np.where(np.isnan(flat), np.nan, result), k)

    def cdf(self, k: Any) -> Any:
        """P(Z <= k); at most `mass`."""
        return self._each(k, 0.0, self._mass, self._from_below)

    def sf(self, k: Any) -> Any:
        """P(Z > k), infinity included."""
        return self._each(k, 1.0, 1.0 - self._mass, lambda v: (1.0 - self._mass) + self._tail(v))

    def ppf(self, q: Any) -> Any:
        """The least k with cdf(k) >= q, as far as doubles tell cdf(k - 1) from cdf(k).

        start - 1 at q = 0 as in scipy, inf from `mass` on, nan outside [0, 1].
        """
        q = np.asarray(q, dtype=np.float64)
        flat = q.reshape(-1)
        result = np.full(flat.shape, np.nan)
        result[flat == 0] = self._start - 1
        result[(flat >= self._mass) & (flat > 0) & (flat <= 1)] = np.inf
        if len(inside := np.flatnonzero((flat > 0) & (flat < self._mass))):
            wanted = flat[inside]
            result[inside] = self._least(lambda k, i: self._from_below(k) >= wanted[i], len(inside))
        if self._mean == self._start:
            result[(flat > 0) & (flat <= 1)] = self._start
        return _shaped(result, q)

    def rvs(self, size: int | tuple[int, ...] | None = None, random_state: Any = None) -> Any:
        """Samples by inversion of the survival function: the tail is the distribution's own, no tree is cut.

        int64; float64 for a distribution that is critical, nearly so or supercritical, whose numbers pass any integer
        type: inf is a word that never dies out. random_state: None, a seed, or a numpy Generator.
        """
        u = 1.0 - np.random.default_rng(random_state).random(size)  # in (0, 1]
        flat = np.asarray(u, dtype=np.float64).reshape(-1) - (1.0 - self._mass)
        result = np.full(flat.shape, np.inf)
        if self._mean == self._start:
            result[:] = self._start
        elif len(inside := np.flatnonzero(flat > 0)):
            wanted = flat[inside]
            result[inside] = self._least(lambda k, i: self._tail(k) < wanted[i], len(inside))
        whole = np.isfinite(self._mean) and not self._tail(np.array([2.0**62])).any()
        typed = result.astype(np.int64) if whole else result
        return typed.reshape(np.shape(u))[()]

    def mean(self) -> float:
        """inf where the distribution is critical or supercritical."""
        return self._mean

    def var(self) -> float:
        """inf where the distribution is critical or supercritical."""
        return self._var

    def std(self) -> float:
        return float(np.sqrt(self._var))

    def support(self) -> tuple[int, float]:
        return self._start, (self._start if self._mean == self._start else np.inf)

    @property
    def mass(self) -> float:
        """The chance that the number is finite: 1, or the probability of extinction."""
        return self._mass

    def _each(self, k: Any, below: float, at_infinity: float, inside: Callable[[Array], Array]) -> Any:
        """A function of floor(k), k of any shape."""
        k = np.asarray(k, dtype=np.float64)
        flat = np.floor(k.reshape(-1))
        result = np.where(np.isnan(flat), np.nan, np.where(flat < self._start, below, at_infinity))
        if (usual := (flat >= self._start) & np.isfinite(flat)).any():
            values, where = np.unique(flat[usual], return_inverse=True)
            result[usual] = inside(values)[where]
        return _shaped(result, k)

    # ---- the table ----

    @cached_property
    def _length(self) -> int:
        """Of the table: up to where the pmf is smooth."""
        length = SHORTEST_TABLE
        while not (self._over(end := float(self._start + length)) or self._smooth_at(end)):
            length *= 2
            if length > LONGEST_TABLE:
                raise UserError(
                    f"{type(self).__name__} has no smooth tail within {LONGEST_TABLE} numbers: nearly all of its "
                    "repeats are by one agent, which repeats nearly always"
                )
        return length

    @cached_property
    def _table(self) -> tuple[Array, Array]:
        """P(Z <= k) and P(k < Z < inf) for k = start, start + 1, ... [length]."""
        k = self._start + np.arange(self._length, dtype=np.float64)
        pmf = np.exp(self._log_pmf(k))
        beyond = self._far_tail(k[-1:]) if self._far_tail else np.zeros(1)
        tail = np.cumsum(np.concatenate([beyond, pmf[:0:-1]]))[::-1]
        return np.cumsum(pmf), tail

    @property
    def _last(self) -> float:
        return float(self._start + self._length - 1)

    def _smooth_at(self, k: float) -> bool:
        at = np.array([k])
        if self._log_pmf(at)[0] < NOTHING:
            return True  # on the way to a hump, which is smooth
        return bool(self._variance(at)[0] * k > self._real_from and self._width(at)[0] > SMOOTH_WIDTH)

    def _over(self, k: float) -> bool:
        """Whether the pmf is below all doubles from k on."""
        here, there = self._log_pmf(np.array([k, k + 1.0]))
        return bool(here == -np.inf or (here < NOTHING and there < here))

    def _width(self, k: Array) -> Array:
        """One over the root of the second derivative of -log pmf at k, its power of k aside."""
        return np.sqrt(self._variance(k) * k) * k / self._start

    def _from_below(self, k: Array) -> Array:
        """P(Z <= k) of whole k >= start [K]: summed from the left up to the median, the mass less the tail beyond."""
        tail = self._tail(k)
        below = self._table[0][np.minimum(k - self._start, self._length - 1).astype(np.int64)]
        left = (k <= self._last) & (tail > self._mass / 2)
        return np.where(left, below, np.maximum(self._mass - tail, 0.0))

    def _tail(self, k: Array) -> Array:
        """P(k < Z < inf) of whole k >= start - 1 [K]."""
        result = np.full(k.shape, self._mass)
        near = (k <= self._last) & (k >= self._start)
        result[near] = self._table[1][(k[near] - self._start).astype(np.int64)]
        far = np.flatnonzero(k > self._last)
        result[far] = 0.0
        if (beyond := self._far_tail) is not None:
            for i in range(0, len(far), CHUNK_ROWS):
                rows = far[i : i + CHUNK_ROWS]
                result[rows] = beyond(k[rows])
        return result

    def _least(self, reached: Callable[[Array, Array], Array], count: int) -> Array:
        """For each of `count` monotone conditions on k the least whole k that meets it, by bisection [count]."""
        low, high = np.full(count, self._start - 1.0), np.full(count, self._last)
        short = np.arange(count)
        while len(short := short[~reached(high[short], short)]):
            low[short] = high[short]
            high[short] *= 4.0
        active = np.arange(count)
        while len(active):
            middle = np.floor(low[active] + (high[active] - low[active]) / 2.0)
            # False also where there is no double in between.
            between = (middle > low[active]) & (middle < high[active])
            active, middle = active[between], middle[between]
            met = reached(middle, active)
            high[active[met]], low[active[~met]] = middle[met], middle[~met]
        return high

    @cached_property
    def _far_tail(self) -> SmoothTail | None:
        """Beyond the table; None where nothing is left."""
        return None if self._over(self._last + 1.0) else SmoothTail(self._log_pmf, self._width, self._last)


def _shaped(flat: Array, like: Array) -> Any:
    return flat.reshape(like.shape)[()]
