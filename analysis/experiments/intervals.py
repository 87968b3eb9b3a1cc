"""How sure a difference between two groups of seeds is: t intervals, paired and not, and a bootstrap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A confidence interval; nan where there are too few seeds for one."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def shown(self, digits: int, sign: str = "+") -> str:
        """[low, high], or why there is none; sign: "+" of differences, "" of levels."""
        if np.isnan(self.low):
            return "(no interval: needs two seeds)"
        return f"[{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}]"


class Difference(NamedTuple):
    """Mean of the first group minus mean of the second, and its intervals."""

    mean: float
    paired: Interval  # Student's t on the differences seed by seed
    unpaired: Interval  # Welch's t, which knows nothing of the pairs
    bootstrap: Interval  # percentiles of the mean difference when seeds are drawn again, with replacement


def difference(first: ArrayLike, second: ArrayLike, level: float = 0.95, seed: int = 0) -> Difference:
    """Compare two groups of runs, [S] each; run s of both has the same seed.

    With few seeds the bootstrap's interval is too narrow (Efron & Tibshirani 1993, chapter 13), so the t intervals are
    the ones to go by.

    >>> difference([3.0, 4.0, 5.0], [1.0, 2.0, 3.0]).mean
    2.0
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"groups of shape {a.shape} and {b.shape}; both must be [S]")
    apart = a - b
    mean = float(apart.mean()) if len(apart) else float("nan")
    if len(apart) < 2 or not np.isfinite(apart).all():
        unknown = Interval(float("nan"), float("nan"))
        return Difference(mean, unknown, unknown, unknown)
    return Difference(mean, _student(apart, level), _welch(a, b, level), _bootstrap(apart, level, seed))


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of one group of runs, [S]; nan of fewer than two.

    >>> mean_interval([1.0, 3.0], level=0.5).shown(2)  # t is 1 at the 75th percentile, with one degree of freedom
    '[+1.00, +3.00]'
    """
    found = np.asarray(values, float)
    if len(found) < 2 or not np.isfinite(found).all():
        return Interval(float("nan"), float("nan"))
    return _student(found, level)


def _student(apart: np.ndarray, level: float) -> Interval:
    error = apart.std(ddof=1) / np.sqrt(len(apart))
    return _around(float(apart.mean()), float(error), len(apart) - 1, level)


def _welch(a: np.ndarray, b: np.ndarray, level: float) -> Interval:
    """Welch 1947: the degrees of freedom by Satterthwaite's equation."""
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    total = parts.sum()
    # Without any spread the interval is a point, whatever the degrees of freedom.
    freedom = total**2 / (parts**2 / (len(a) - 1)).sum() if total > 0 else 1.0
    return _around(float(a.mean() - b.mean()), float(np.sqrt(total)), float(freedom), level)


def _around(mean: float, error: float, freedom: float, level: float) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Interval(mean - half, mean + half)


def _bootstrap(apart: np.ndarray, level: float, seed: int) -> Interval:
    drawn = np.random.default_rng(seed).integers(len(apart), size=(RESAMPLES, len(apart)))
    low, high = np.quantile(apart[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
