"""How sure a mean is: Student's t interval, counted by scipy.stats."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95


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


UNKNOWN = Interval(float("nan"), float("nan"))


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Student's t interval of the mean of one group of runs, [S]; nan of fewer than two.

    >>> mean_interval([1.0, 3.0], level=0.5).shown(2)  # t is 1 at the 75th percentile, with one degree of freedom
    '[+1.00, +3.00]'
    """
    from scipy import stats  # half a second, for those who ask

    found = np.asarray(values, float)
    if len(found) < 2 or not np.isfinite(found).all():
        return UNKNOWN
    return _of_test(lambda: stats.ttest_1samp(found, 0.0), level)


def welch_interval(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Interval:
    """Welch's t interval (1947) of the mean of one group less that of another, [S] and [S']; nan of fewer than two."""
    from scipy import stats

    a, b = np.asarray(first, float), np.asarray(second, float)
    if min(len(a), len(b)) < 2:
        return UNKNOWN
    return _of_test(lambda: stats.ttest_ind(a, b, equal_var=False), level)


def _of_test(test: Callable[[], Any], level: float) -> Interval:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # values that are all the same: the interval is a point
        told = test().confidence_interval(level)
    return Interval(float(told.low), float(told.high))
