"""How many transmissions a channel carries in a step, once new words and fading ones are in balance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import comb

from popcomm.checks import at_least_zero, between
from popcomm.errors import UserError
from popcomm.theory.checks import Array, probabilities
from popcomm.theory.offspring import excess, offspring_moments, offspring_pmf, union

LEAST_LOSS = 1e-10  # the inverted distribution is right to about 1e-13
NEGLIGIBLE = 45.0  # e^-45 is 3e-20
SERIES = 14
CHUNK_ELEMENTS = 2**20
MOST_POINTS = 2**24


@dataclass(frozen=True)
class StationaryLoad:
    """The distribution of the transmissions in a step. mean and var, in transmissions a step."""

    mean: float
    var: float
    _first: int = field(repr=False)
    _pmf: Array = field(repr=False)  # of _first, _first + 1, ...; what is left out has probability e^-45

    def pmf(self, k: Any) -> Any:
        """P(load = k), any shape, right to about 1e-14."""
        k = np.asarray(k, dtype=np.float64)
        index = k - self._first
        inside = (index >= 0) & (index < len(self._pmf)) & (k == np.floor(k))
        return np.where(inside, self._pmf[np.where(inside, index, 0).astype(np.int64)], 0.0)[()]

    def sf(self, k: Any) -> Any:
        """P(load > k), any shape, right to about 1e-13."""
        index = np.floor(np.asarray(k, dtype=np.float64)) - self._first
        tail = self._tail()
        inside = np.clip(index, 0, len(tail) - 1).astype(np.int64)
        return np.where(index < 0, 1.0, tail[inside])[()]

    def cdf(self, k: Any) -> Any:
        """P(load <= k), any shape."""
        return 1.0 - self.sf(k)

    def capacity(self, loss: float) -> int:
        """The least K with P(load > K) < loss.

        Raises:
            UserError: loss outside [1e-10, 1].
        """
        loss = between("loss", loss, LEAST_LOSS, 1)
        return self._first + int(np.argmax(self._tail() < loss))

    def _tail(self) -> Array:
        return np.append(np.cumsum(self._pmf[::-1])[::-1][1:], 0.0)


def stationary_load(rate: float, p: Any) -> StationaryLoad:
    """The distribution of the load where all agents hear all, p [N], and Poisson(rate) new words are sent in a step.

    A Galton-Watson process with immigration (Heathcote 1965, A Branching Process Allowing Immigration). Its generating
    function is the product over t of exp(rate (g_t(s) - 1)), g_t the t-fold iterate of G; it is inverted by an FFT on
    the unit circle. mean mu = rate / (1 - m), variance (s2 mu + rate) / (1 - m^2).

    Raises:
        UserError: rate below 0, p is not [N] in [0, 1], m >= 1 (a load without end), or a load so wide that its
            distribution has more than 2**24 values.
    """
    from scipy.fft import next_fast_len  # trainings begin without it

    rate, p = at_least_zero("rate", rate), probabilities(p)
    if p.ndim != 1:
        raise UserError(f"p has shape {p.shape}, and must be [N]")
    m, s2 = (float(v) for v in offspring_moments(p))
    slack = -float(excess(p))
    if slack <= 0:
        raise UserError(
            f"p sums to R = {m:.6g}, and must stay below 1: words repeat themselves at least once on average, and the "
            "load grows without end"
        )
    mean = rate / slack
    var = (s2 * mean + rate) / (slack * (1.0 + m))
    if rate == 0:
        return StationaryLoad(0.0, 0.0, 0, np.ones(1))
    clusters = _Clusters(p, slack)
    first, last = _window(rate, clusters, var)
    if last - first >= MOST_POINTS:
        raise UserError(f"rate {rate:g} at R = {m:.6g} makes a load of {mean:.4g}; lower either")
    points = next_fast_len(last - first + 1, real=True)
    return StationaryLoad(mean, var, first, _inverted(rate, clusters, first, points))


class _Clusters:
    """Psi(D) = sum over t of H^t(D), H(D) = 1 - prod(1 - p_i D): log E s^load = -rate Psi(1 - s)."""

    def __init__(self, p: Array, slack: float) -> None:
        self.p, self.slack = p[p > 0] if (p > 0).any() else p[:1], slack
        distribution = offspring_pmf(self.p)
        order = np.arange(1, SERIES + 1)
        # H(D) = e_1 D - e_2 D^2 + ..., and the elementary symmetric e_k = E C(X, k): no cancellation.
        h = (-1.0) ** (order + 1) * (comb(np.arange(len(distribution)), order[:, None]) @ distribution)
        # Psi(D) - Psi(H(D)) = D, coefficient by coefficient.
        self.series = np.zeros(SERIES)
        remainder = np.zeros(SERIES)
        remainder[0] = 1.0
        power = h
        for k in range(SERIES):
            self.series[k] = remainder[k] / (slack if k == 0 else 1.0 - power[k])
            remainder += self.series[k] * power
            power = np.convolve(power, np.concatenate([[0.0], h]))[:SERIES]
        # The series reaches to the other fixed point of H; 0.03 of it, to the power 14, is below rounding.
        pairs = -h[1]
        self.radius = (
            0.03 * (slack / pairs if pairs > slack else 1.0) if pairs > 0 else np.inf
        )  # one agent: H is linear

    def __call__(self, d: Array) -> Array:
        """Psi, d [K] real or complex -> [K]; inf where a real d < 0 is too near the radius of convergence."""
        total = np.zeros_like(d)
        active = np.arange(len(d))
        if not np.iscomplexobj(d):
            # H is concave: the first step shrinks least. What shrinks at less than half the usual pace is left out.
            first = union(self.p * d[:, None])
            active = np.flatnonzero((d > 0) | (np.abs(first) < (1.0 - self.slack / 2.0) * np.abs(d)))
            total = np.where(d != 0, np.inf, 0.0)
            total[active] = 0.0
        d = d[active]
        while len(d):
            small = np.abs(d) <= self.radius
            total[active[small]] += d[small] * np.polyval(self.series[::-1], d[small])
            active, d = active[~small], d[~small]
            total[active] += d
            d = union(self.p * d[:, None])
        return total


def _window(rate: float, clusters: _Clusters, var: float) -> tuple[int, int]:
    """Between which numbers all of the load is but e^-45, by Chernoff's bound."""
    deviation = np.sqrt(var)
    scale = np.geomspace(min(1e-2 / deviation, clusters.radius / 10.0), max(1e3 / deviation, 1e3), 300)
    grown = clusters(-scale)
    above = np.where(np.isfinite(grown), (NEGLIGIBLE - rate * grown) / np.log1p(scale), np.inf)
    below = scale[scale < 1.0]
    first = ((NEGLIGIBLE - rate * clusters(below)) / np.log1p(-below)).max() if len(below) else 0.0
    return max(0, int(first)), int(above.min()) + 1


def _inverted(rate: float, clusters: _Clusters, first: int, points: int) -> Array:
    """The pmf of first, first + 1, ... [points]."""
    half = points // 2 + 1
    transform = np.zeros(half, dtype=np.complex128)
    rows = max(1, CHUNK_ELEMENTS // len(clusters.p))
    done = 0
    while done < half:
        index = np.arange(done, min(done + min(rows, 512 + done), half))
        theta = 2.0 * np.pi * index / points
        log_value = -rate * clusters(-_expm1_imaginary(theta)) - 1j * (theta * first)
        transform[index] = np.exp(log_value.conj())
        done = int(index[-1]) + 1
        # |E e^(i theta load)| is below that of the new words alone, and falls with theta as it does.
        if log_value.real.max() < -2 * NEGLIGIBLE:
            break
    return np.fft.irfft(transform, points)


def _expm1_imaginary(theta: Array) -> Array:
    """e^(i theta) - 1 with the digits of its small real part."""
    return -2.0 * np.sin(theta / 2.0) ** 2 + 1j * np.sin(theta)
