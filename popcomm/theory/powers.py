"""Coefficients of powers G(s)^k of a Poisson binomial generating function, relatively precise wherever they are."""

from __future__ import annotations

import numpy as np

from popcomm.theory.checks import Array
from popcomm.theory.deviance import LOG_2_PI, deviance

# Cauchy's integral on the circle through the saddle point, where nothing cancels (Bornemann 2011, Accuracy and
# Stability of Computing High-Order Derivatives of Analytic Functions by Cauchy Integrals).
POINTS = 40
# Beyond this variance the integral is Daniels' expansion (1954, Saddlepoint Approximations in Statistics), whose next
# term is of order variance^-2.
EXPANSION_FROM = 1e8
CHUNK_ELEMENTS = 2**18
NEWTON_STEPS = 100


class Tilted:
    """The distribution of k rounds of independent Bernoulli(p_i) trials, tilted so that k - r successes are its mean.

    Args:
        p: [U] float64, different values in (0, 1).
        counts: [U], how many trials of a round have each p.
        deficit: 1 - sum of counts * p, to the last digit.
        r: the number of ancestors.
    """

    def __init__(self, p: Array, counts: Array, deficit: float, r: int) -> None:
        self.p, self.counts, self.deficit, self.r = p, counts, deficit, r

    def log_coefficient(self, k: Array) -> Array:
        """log [s^(k - r)] G(s)^k for k [K] > r, whole, or real where k * variance(k) is above 25."""
        rows = max(1, CHUNK_ELEMENTS // (POINTS * len(self.p)))
        parts = [self._chunk(k[i : i + rows]) for i in range(0, len(k), rows)]
        return np.concatenate(parts) if parts else np.empty(0)

    def variance(self, k: Array) -> Array:
        """Of one tilted round, k [K] -> [K]."""
        q, others, _, _ = self._tilt(k)
        return (self.counts * q * others).sum(-1)

    def _chunk(self, k: Array) -> Array:
        q, others, log_tilt, residual = self._tilt(k)
        p, c = self.p, self.counts
        moved = q - p
        if np.any(small := np.abs(log_tilt) < 0.5):
            # q - p = p (1 - q) (tilt - 1), without the cancellation.
            moved = np.where(small[:, None], p * others * np.expm1(log_tilt)[:, None], moved)
        distance = p * deviance(moved / p) + (1.0 - p) * deviance(-moved / (1.0 - p))
        spread = c * q * others
        variance = spread.sum(-1)
        exponent = -k * (c * distance).sum(-1) + residual * log_tilt
        return exponent - 0.5 * (LOG_2_PI + np.log(k * variance)) + np.log(self._correction(k, q, others, residual))

    def _tilt(self, k: Array) -> tuple[Array, Array, Array, Array]:
        """Tilted q and 1 - q [K, U], log tilt [K], and k sum(q) - (k - r) [K], what the solution is short of."""
        share = self.r / k
        gap, level = self.deficit - share, 1.0 - share
        # Near the mean the unknown is tilt - 1, far below it the tilt: each has its digits where it is small.
        near = np.abs(gap) <= level
        p, c = self.p, self.counts
        weight = np.where(near[:, None], c * p * (1.0 - p), c * p)
        base = np.where(near[:, None], 1.0, 1.0 - p)
        low = level / (c * p / (1.0 - p)).sum()  # sum of odds * tilt is above sum of q
        y = np.where(near, np.where(gap > 0, 0.0, low - 1.0), low)
        target = np.where(near, gap, level)
        for _ in range(NEWTON_STEPS):
            # Increasing and concave: Newton's iterates rise to the root.
            below = base + p * y[:, None]
            step = (target - (weight * y[:, None] / below).sum(-1)) / (weight * base / below**2).sum(-1)
            y = y + step
            if (np.abs(step) <= 1e-13 * np.abs(y)).all():
                break
        below = base + p * y[:, None]
        residual = k * ((weight * y[:, None] / below).sum(-1) - target)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_tilt = np.where(near, np.log1p(np.where(near, y, 0.0)), np.log(np.where(near, 1.0, y)))
        tilt = np.where(near, 1.0 + y, y)[:, None]
        return p * tilt / below, (1.0 - p) / below, log_tilt, residual

    def _correction(self, k: Array, q: Array, others: Array, residual: Array) -> Array:
        """P(tilted sum = k - r) over the normal density at its mean, [K]: the trapezoidal rule on the circle."""
        c = self.counts
        spread = q * others
        variance = k * (c * spread).sum(-1)
        # So many points that what the rule adds by aliasing, P(|sum - mean| >= points), is below e^-45 (Bernstein).
        points = 2.0 * np.ceil(15.0 + 4.8 * np.sqrt(variance)) + 1.0
        index = np.arange(POINTS)
        angle = 2.0 * np.pi * index / points[:, None]
        weight = np.where(index == 0, 1.0, 2.0) * (2 * index < points[:, None])
        theta, q3, spread3 = angle[:, :, None], q[:, None, :], spread[:, None, :]
        log_size = 0.5 * np.log1p(-4.0 * spread3 * np.sin(theta / 2.0) ** 2)
        phase = np.arctan2(q3 * np.sin(theta), others[:, None, :] + q3 * np.cos(theta)) - q3 * theta
        size = np.exp(k[:, None] * (c * log_size).sum(-1))
        turn = k[:, None] * (c * phase).sum(-1) + residual[:, None] * angle
        integral = np.sqrt(2.0 * np.pi * variance) * (weight * size * np.cos(turn)).sum(-1) / points
        third = k * (c * spread * (others - q)).sum(-1)
        fourth = k * (c * spread * (1.0 - 6.0 * spread)).sum(-1)
        expansion = 1.0 + fourth / (8.0 * variance**2) - 5.0 * third**2 / (24.0 * variance**3)
        return np.where(variance < EXPANSION_FROM, integral, expansion)
