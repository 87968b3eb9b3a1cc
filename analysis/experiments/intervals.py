"""How sure means and differences over seeds are: t intervals, paired and not, and a bootstrap. scipy.stats counts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from popcomm.errors import UserError
from popcomm.language.intervals import LEVEL, UNKNOWN, Interval, mean_interval, welch_interval

__all__ = [
    "LEVEL", "Difference", "Interval", "correlation", "detectable", "difference", "mean_interval", "mean_shown",
    "paired", "share_interval",
]  # fmt: skip

RESAMPLES = 10_000


class Difference(NamedTuple):
    """Mean of the first group minus mean of the second, and its intervals."""

    mean: float
    paired: Interval  # Student's t on the differences seed by seed
    unpaired: Interval  # Welch's t (1947), which knows nothing of the pairs
    bootstrap: Interval  # percentiles of the mean difference when seeds are drawn again, with replacement

    def shown(self, digits: int) -> str:
        """The mean and the paired interval."""
        return f"{self.mean:+,.{digits}f} {self.paired.shown(digits)}"


def difference(first: ArrayLike, second: ArrayLike, level: float = LEVEL, seed: int = 0) -> Difference:
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
        return Difference(mean, UNKNOWN, UNKNOWN, UNKNOWN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds that came to the same: the interval is a point
        bootstrap = stats.bootstrap(
            (apart,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Difference(mean, mean_interval(apart, level), welch_interval(a, b, level), _interval(bootstrap))


def mean_shown(values: Sequence[float], digits: int, sign: str = "") -> str:
    """The mean of the seeds, and its t interval."""
    return f"{np.mean(values):.{digits}f} {mean_interval(values).shown(digits, sign)}"


def share_interval(count: int, of: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a probability (1927), from `count` successes in `of` runs."""
    return _interval(stats.binomtest(count, of).proportion_ci(level, method="wilson"))


def detectable(values: ArrayLike, level: float = LEVEL, power: float = 0.8) -> float:
    """The mean that another sample of this size and spread would tell from 0 with probability `power`.

    Two-sided t test at 1 - level; the noncentral t distribution (Cohen 1988, chapter 2). nan of fewer than two values;
    0 where they do not vary.

    >>> round(detectable([-1.0, 1.0] * 10), 2)  # 20 of deviation 1.03: 0.66 deviations (G*Power says 0.6604)
    0.68
    """
    found = np.asarray(values, float)
    if len(found) < 2 or not np.isfinite(found).all():
        return float("nan")
    error, degrees = float(found.std(ddof=1) / np.sqrt(len(found))), len(found) - 1
    bound = float(stats.t.ppf(0.5 + level / 2, degrees))
    # Of the noncentral t: normal given the deviation that was estimated, of which these are equally likely values.
    spread = bound * np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, degrees) / degrees)

    def lacks(effect: float) -> float:
        return float((stats.norm.sf(spread - effect) + stats.norm.cdf(-spread - effect)).mean() - power)

    return error * float(optimize.brentq(lacks, 0.0, 3 * bound + 10)) if error else 0.0


def correlation(
    x: ArrayLike, y: ArrayLike, groups: Sequence[Any] | None = None, level: float = LEVEL
) -> tuple[float, Interval]:
    """Spearman's correlation of two numbers of R runs, and its interval (Bonett & Wright 2000, by Fisher's z).

    Args:
        x, y: [R].
        groups: [R], of which only what differs within them counts: ranks less the mean of their group, the partial
            correlation given the groups, each of which but one costs a degree of freedom.

    Returns:
        nan, and an interval of nan, where x or y does not vary, or where there are too few runs.

    >>> correlation([1, 2, 3, 4, 5], [1, 4, 9, 16, 25])[0]
    1.0
    """
    ranks = np.stack([stats.rankdata(np.asarray(values, float)) for values in (x, y)])
    named = [str(group) for group in groups] if groups else [""] * ranks.shape[1]
    kinds, of = np.unique(named, return_inverse=True)
    counts = np.bincount(of)
    ranks -= np.stack([(np.bincount(of, row) / counts)[of] for row in ranks])
    spread = np.sqrt((ranks**2).sum(1).prod())
    degrees = ranks.shape[1] - len(kinds) - 2
    if spread < 1e-9 or degrees < 1:
        return float("nan"), UNKNOWN
    rho = float(np.clip((ranks[0] * ranks[1]).sum() / spread, -1, 1))
    if abs(rho) > 1 - 1e-9:
        return round(rho, 0), Interval(rho, rho)
    reach = stats.norm.ppf(0.5 + level / 2) * np.sqrt((1 + rho**2 / 2) / degrees)
    return rho, Interval(*(float(np.tanh(np.arctanh(rho) + side * reach)) for side in (-1, 1)))


def paired(
    first: Sequence[Any], second: Sequence[Any], of: Callable[[Any], float], other: Callable[[Any], float] | None = None
) -> Difference | None:
    """Of a number of runs, first minus second (there by `other`), over the seeds that both have; None: there are none.

    Args:
        first, second: runs, each a mapping with a "seed".

    Raises:
        UserError: a seed stands twice in one of them, as where runs of two lengths were taken for one arm.
    """
    for runs in (first, second):
        seeds = [run["seed"] for run in runs]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            raise UserError(f"seed {twice[0]} stands twice among the runs of one arm; --out must hold runs of one kind")
    there = {run["seed"]: run for run in second}
    pairs = [(of(run), (other or of)(there[run["seed"]])) for run in first if run["seed"] in there]
    return difference(*zip(*pairs, strict=True)) if pairs else None


def _interval(found: Any) -> Interval:
    return Interval(float(found.low), float(found.high))
