"""How many transmissions one word makes in all: distributions of Borel, Borel and Tanner, Consul, Otter and Dwass."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from scipy.special import exprel

from popcomm.checks import at_least_zero, between, count
from popcomm.errors import UserError
from popcomm.theory.checks import Array, probabilities
from popcomm.theory.deviance import log_binomial, log_poisson
from popcomm.theory.distributions import CountDistribution
from popcomm.theory.extinction import extinction_probability
from popcomm.theory.offspring import CRITICAL, excess
from popcomm.theory.powers import Tilted


class _Progeny(CountDistribution):
    """Base: `ancestors` words, whose transmissions have offspring of mean 1 - deficit and variance `spread`."""

    def __init__(self, ancestors: int, extinction: float, deficit: float, spread: float) -> None:
        self._deficit = deficit
        finite = deficit > 0
        mean = ancestors / deficit if finite else np.inf
        var = ancestors * spread / deficit**3 if finite else np.inf
        super().__init__(ancestors, extinction**ancestors, mean, var)

    def _log_coefficient(self, k: Array) -> Array:
        """log [s^(k - r)] G(s)^k, k [K] > r."""
        raise NotImplementedError

    def _log_none(self) -> float:
        """log G(0)."""
        raise NotImplementedError

    def _log_pmf(self, k: Array) -> Array:
        # Otter 1949 (r = 1), Dwass 1969, The Total Progeny in a Branching Process: P(Z = k) = (r/k) [s^(k-r)] G(s)^k.
        r = self._start
        result = np.full(k.shape, r * self._log_none())
        more = k > r
        if self._mean == r or self._mass == 0:
            result[more] = -np.inf
        elif more.any():
            result[more] = np.log(r / k[more]) + self._log_coefficient(k[more])
        return result


class BorelTanner(_Progeny):
    """All transmissions of n words where each has Poisson(mu) offspring: the limit of many agents of small p.

    P(Z = k) = (n/k) e^(-mu k) (mu k)^(k-n) / (k-n)!, k >= n (Tanner 1961, A Derivation of the Borel Distribution).
    mean n / (1 - mu), variance n mu / (1 - mu)^3. See `TotalProgeny` for mu >= 1.

    Raises:
        UserError: mu below 0, or n below 1.
    """

    def __init__(self, mu: float, n: int = 1) -> None:
        self.mu = at_least_zero("mu", mu)
        deficit = _rounded(1.0 - self.mu)
        super().__init__(count("n", n, 1), 1.0 - _poisson_survival(self.mu, -deficit), deficit, self.mu)

    def _log_none(self) -> float:
        return -self.mu

    def _log_coefficient(self, k: Array) -> Array:
        r = self._start
        return log_poisson(k - r, self.mu * k, k * self._deficit - r)

    def _variance(self, k: Array) -> Array:
        return 1.0 - self._start / k


class Borel(BorelTanner):
    """All transmissions of one word where each has Poisson(mu) offspring: e^(-mu k) (mu k)^(k-1) / k!, k >= 1.

    Raises:
        UserError: mu below 0.
    """

    def __init__(self, mu: float) -> None:
        super().__init__(mu, 1)


class Consul(_Progeny):
    """All transmissions of one word where n agents repeat with the same p: (1/k) C(nk, k-1) p^(k-1) (1-p)^(nk-k+1).

    Consul and Shenton 1972, Use of Lagrange Expansion for Generating Discrete Generalized Probability Distributions.
    mean 1 / (1 - m), variance m (1 - p) / (1 - m)^3, where m = n p. See `TotalProgeny` for m >= 1.

    Raises:
        UserError: n below 1, or p outside [0, 1].
    """

    def __init__(self, n: int, p: float) -> None:
        self.n, self.p = count("n", n, 1), between("p", p, 0, 1)
        deficit = _rounded(float(1 - self.n * Fraction(self.p)))
        extinction = float(extinction_probability(np.full(self.n, self.p)))
        super().__init__(1, extinction, deficit, self.n * self.p * (1.0 - self.p))

    def _log_none(self) -> float:
        return self.n * _log1p(-self.p)

    def _log_coefficient(self, k: Array) -> Array:
        return log_binomial(k - 1.0, self.n * k, self.p, k * self._deficit - 1.0)

    def _variance(self, k: Array) -> Array:
        level = 1.0 - 1.0 / k
        return level * (1.0 - level / self.n)


class TotalProgeny(_Progeny):
    """All transmissions of `ancestors` words, they included, where agent i repeats each with probability p[i].

    P(Z = k) = (r/k) [s^(k-r)] G(s)^k, G(s) = prod(1 - p_i + p_i s) (Otter 1949, Dwass 1969); mean r / (1 - m),
    variance r s2 / (1 - m)^3.

    Critical, m = 1: Z is finite, mean and variance are inf, and P(Z > k) falls as k^(-1/2). Supercritical, m > 1: Z is
    inf with probability 1 - e^r, e the probability of extinction. The pmf then sums to `mass` = e^r, cdf rises to
    `mass`, sf falls to 1 - mass, ppf is inf from `mass` on, rvs draws inf for words that never die out, and mean and
    variance are inf.

    The cost of a probability grows with the number of *different* p: some microseconds for each.

    Args:
        p: [N] float in [0, 1].
        ancestors: r >= 1.

    Raises:
        UserError: p is not [N] in [0, 1], or ancestors are below 1.
    """

    _real_from = 25.0

    def __init__(self, p: Any, ancestors: int = 1) -> None:
        p = probabilities(p)
        if p.ndim != 1:
            raise UserError(
                f"p has shape {p.shape}, and must be [N]: one distribution has one probability for each agent"
            )
        self.p = p
        deficit = -float(excess(p))
        super().__init__(
            count("ancestors", ancestors, 1), float(extinction_probability(p)), deficit, float((p * (1 - p)).sum())
        )
        values, counts = np.unique(p[p > 0], return_counts=True)
        self._equal = (int(counts[0]), float(values[0])) if len(values) == 1 else None
        self._tilted = Tilted(values, counts.astype(np.float64), deficit, self._start)
        if self._equal:
            self._real_from = 0.0

    def _log_none(self) -> float:
        return sum(_log1p(-q) for q in self.p.tolist())

    def _log_coefficient(self, k: Array) -> Array:
        if self._equal is None:
            return self._tilted.log_coefficient(k)
        n, p = self._equal
        return log_binomial(k - self._start, n * k, p, k * self._deficit - self._start)

    def _variance(self, k: Array) -> Array:
        if self._equal is None:
            return self._tilted.variance(k)
        level = 1.0 - self._start / k
        return level * (1.0 - level / self._equal[0])


def _rounded(deficit: float) -> float:
    return 0.0 if abs(deficit) <= CRITICAL else deficit


def _log1p(x: float) -> float:
    return float(np.log1p(x)) if x > -1 else -np.inf


def _poisson_survival(mu: float, above: float) -> float:
    """The root d > 0 of d = 1 - e^(-mu d), where mu - 1 = above > 0.

    Newton on mu (1 - exprel(-mu d)) = above, whose left side is increasing and concave in d, from 0.
    """
    if above <= 0:
        return 0.0
    d = min(1.0, above * 2.0 / mu**2)
    for _ in range(200):
        ratio = exprel(-mu * d)
        step = (above - mu * (1.0 - ratio)) * d / (mu * (ratio - np.exp(-mu * d)))
        d = min(1.0, d + step)
        if step <= 1e-15 * d:
            break
    return float(d)
