"""How sure a mean is: Student's t interval, counted by scipy.stats."""

from __future__ import annotations

import warnings
from typing import NamedTuple

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # values that are all the same: the interval is a point
        told = stats.ttest_1samp(found, 0.0).confidence_interval(level)
    return Interval(float(told.low), float(told.high))
