"""Binomial and Poisson probabilities to the last digits, also where their gamma functions are huge."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, xlogy

from popcomm.theory.checks import Array

# Loader 2000, Fast and Accurate Computation of Binomial Probabilities: Stirling's formula is divided out, and what is
# left, deviances and Stirling's errors, is computed without cancellation. All arguments may be real numbers.
STIRLING_FROM = 16.0
STIRLING_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
ATANH_TERMS = 14  # of v = x / (2 + x), |x| <= 1/2: the rest is below 1e-17
LOG_2_PI = float(np.log(2 * np.pi))


def deviance(x: Array) -> Array:
    """(1 + x) log(1 + x) - x for x >= -1, relatively precise also near 0, where it is x^2 / 2."""
    x = np.asarray(x, dtype=np.float64)
    near = np.abs(x) <= 0.5
    small, large = np.where(near, x, 0.0), np.where(near, 0.0, x)
    v = small / (2.0 + small)
    square = v * v
    series = np.zeros_like(v)
    for n in range(ATANH_TERMS, 0, -1):
        series = square * (1.0 / (2 * n + 1) + series)
    return np.where(near, 2.0 * (square + (1.0 + v) * v * series) / (1.0 - v), xlogy(1.0 + large, 1.0 + large) - large)


def stirling_error(x: Array) -> Array:
    """log Gamma(x + 1) - log(sqrt(2 pi x) (x / e)^x) for x > 0."""
    x = np.asarray(x, dtype=np.float64)
    far = x >= STIRLING_FROM
    large, small = np.where(far, x, 1e3), np.where(far, 1.0, x)
    inverse = 1.0 / large
    square = inverse * inverse
    series = np.zeros_like(large)
    for c in reversed(STIRLING_SERIES):
        series = c + square * series
    direct = gammaln(small + 1.0) - (small + 0.5) * np.log(small) + small - 0.5 * LOG_2_PI
    return np.where(far, inverse * series, direct)


def log_poisson(j: Array, mean: Array, gap: Array) -> Array:
    """log(e^-mean mean^j / j!) for j >= 0, mean > 0; gap = j - mean, as precise as the caller knows it."""
    some = np.where(j > 0, j, 1.0)
    return np.where(j > 0, -stirling_error(some) - mean * deviance(gap / mean) - 0.5 * (LOG_2_PI + np.log(some)), -mean)


def log_binomial(j: Array, trials: Array, p: float, gap: Array) -> Array:
    """log(C(trials, j) p^j (1 - p)^(trials - j)) for 0 <= j < trials, 0 < p < 1; gap = j - trials p."""
    some = np.where(j > 0, j, 1.0)
    rest = trials - some
    safe = np.where(rest > 0, rest, 1.0)  # reached only by j = 0 of a single trial, which takes the other branch
    stirling = stirling_error(trials) - stirling_error(some) - stirling_error(safe)
    distance = trials * (p * deviance(gap / (trials * p)) + (1.0 - p) * deviance(-gap / (trials * (1.0 - p))))
    spread = 0.5 * (np.log(trials / safe) - np.log(some) - LOG_2_PI)
    return np.where(j > 0, stirling - distance + spread, trials * np.log1p(-p))
