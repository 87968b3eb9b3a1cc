"""Sums of a smooth distribution's pmf to infinity: integrals over panels, and their differences to the sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from popcomm.theory.checks import Array

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
TO_COEFFICIENTS = np.linalg.inv(np.polynomial.legendre.legvander(NODES, len(NODES) - 1))
NOTHING, FARTHEST = -760.0, 1e45  # a log below which doubles end, and where a power law is its leading term
# sum - integral from half a step before, in central differences of order 1, 3, 5, 7: the series of
# 1 / (2 arsinh(d / 2)), which is Euler's and Maclaurin's formula.
SUM_CORRECTIONS = (1 / 24, -17 / 5760, 367 / 967680, -27859 / 464486400)
AROUND = np.arange(-3.0, 5.0)
# A fall of log pmf per step beyond which the formula would not do, and few terms do: of a fall of 0.1 at first, and a
# little less later, this many are all but e^-50.
STEEP, STEEP_TERMS = 0.1, 600


class SmoothTail:
    """sum of exp(log_pmf(j)) over j > k for whole k >= first.

    log_pmf is known on each panel by its polynomial through 20 Gauss nodes; panels are so short that nothing of it is
    lost to double precision, and grow with k, so that a power law takes some hundred of them.

    Args:
        log_pmf: of real k [K].
        width: how far k [K] may move before log_pmf bends: one over the root of its second derivative.
        first: from where both hold.
    """

    def __init__(self, log_pmf: Callable[[Array], Array], width: Callable[[Array], Array], first: float) -> None:
        self._log_pmf = log_pmf
        ends = _edges(log_pmf, width, first + AROUND[0])
        self._left, self._half = ends[:-1], np.diff(ends) / 2.0
        nodes = (self._left + self._half)[:, None] + self._half[:, None] * NODES
        logs = log_pmf(nodes.reshape(-1)).reshape(nodes.shape)
        self._level = logs[:, 10]
        # Less the panel's own level: a log of -700 must not cost the digits of its changes.
        self._coefficients = ((logs - self._level[:, None]) @ TO_COEFFICIENTS.T).T
        parts = self._half * (np.exp(logs) @ WEIGHTS)
        self._last = ends[-1]
        self._endless = bool(self._last >= FARTHEST)
        rest = 2.0 * ends[-1:] * np.exp(log_pmf(ends[-1:])) if self._endless else np.zeros(1)
        self._beyond = np.cumsum(np.concatenate([rest, parts[::-1]]))[::-1]  # from each edge on

    def __call__(self, k: Array) -> Array:
        """k [K] -> [K]."""
        result = np.zeros(k.shape)
        if self._endless and (far := k >= self._last).any():
            result[far] = 2.0 * k[far] * np.exp(self._log_pmf(k[far]))
        inside = k + 0.5 < self._last
        result[inside] = self._sum(k[inside])
        return result

    def _sum(self, k: Array) -> Array:
        around = k[:, None] + AROUND
        logs = self._logs(around, self._panel(around))
        steep = logs[:, 4] - logs[:, 5] > STEEP
        result = np.empty(k.shape)
        result[~steep] = self._integral(k[~steep]) + _correction(np.exp(logs[~steep]))
        terms = k[steep, None] + np.arange(1.0, STEEP_TERMS)
        values = np.exp(self._logs(np.minimum(terms, self._last), self._panel(terms)))
        result[steep] = np.where(terms < self._last, values, 0.0).sum(-1)
        return result

    def _integral(self, k: Array) -> Array:
        """From k + 1/2 on."""
        x = k + 0.5
        panel = self._panel(x)
        right = self._left[panel] + 2.0 * self._half[panel]
        half = (right - x) / 2.0
        nodes = (x + half)[:, None] + half[:, None] * NODES
        return half * (np.exp(self._logs(nodes, panel[:, None])) @ WEIGHTS) + self._beyond[panel + 1]

    def _panel(self, x: Array) -> Array:
        return np.clip(np.searchsorted(self._left, x, side="right") - 1, 0, len(self._left) - 1)

    def _logs(self, x: Array, panel: Array) -> Array:
        """log pmf of x [K, n] in panels [K, n] or [K, 1]."""
        t = (x - self._left[panel]) / self._half[panel] - 1.0
        return self._level[panel] + np.polynomial.legendre.legval(t, self._coefficients[:, panel], tensor=False)


def _correction(values: Array) -> Array:
    """Sum less integral from the pmf [K, 8] at k + AROUND."""
    total = np.zeros(len(values))
    for coefficient in SUM_CORRECTIONS:
        values = np.diff(values, axis=1)
        total += coefficient * values[:, values.shape[1] // 2]
        values = np.diff(values, axis=1)
    return total


def _edges(log_pmf: Callable[[Array], Array], width: Callable[[Array], Array], first: float) -> Array:
    """Of the panels, [E]."""
    x = first
    edges = [x]
    while x < FARTHEST:
        here, there = log_pmf(np.array([x, x + 1e-6 * x]))
        slope = (there - here) / (1e-6 * x)
        if here < NOTHING and slope <= 0:
            break
        if here < NOTHING:
            step = 1.0 + (NOTHING - here) / slope  # log_pmf is concave before its top: it is below NOTHING up to there
        else:
            step = min(4.0 * width(np.array([x]))[0], 20.0 / max(abs(slope), 1e-300))
        x += min(step, x / 2.0)
        edges.append(x)
    return np.array(edges)
