"""The load of a channel in which agents hear different agents, by source."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, expm1, inf, log
from typing import Any

import numpy as np

from popcomm.checks import between
from popcomm.errors import UserError
from popcomm.theory.by_type import spectral_radius
from popcomm.theory.checks import Array, matrix, numbers

MOST_DOUBLINGS = 64
PRECISION = 1e-13
TAIL_GRID = 100


@dataclass(frozen=True)
class LoadByType:
    """Transmissions in a step by source: mean [N] and covariance [N, N]; their sum has total_mean and total_var."""

    mean: Array
    covariance: Array
    rate: Array = field(repr=False)  # [N], new words a step
    M: Array = field(repr=False)  # [N, N]

    @property
    def total_mean(self) -> float:
        return float(self.mean.sum())

    @property
    def total_var(self) -> float:
        return float(self.covariance.sum())

    def heard(self, hears: Any) -> tuple[Array, Array]:
        """Mean and variance of what each agent hears in a step, hears [N, N] -> [N], [N].

        hears[i, j] = P(j hears i); each transmission is heard or not on its own.

        Raises:
            UserError: hears is not [N, N] in [0, 1].
        """
        h = self._fitting(hears)
        return self.mean @ h, np.einsum("ij,ik,kj->j", h, self.covariance, h, optimize=True) + self.mean @ (h * (1 - h))

    def capacity(self, loss: float, heard: Any = None) -> int:
        """A K with P(load > K) < loss, of the whole load, or of what an agent hears: heard [N] = P(it hears i).

        Chernoff's bound: P(load > K) <= E s^load / s^(K + 1) for every s > 1, with the exact generating function and
        the best s. It is sure, and somewhat more than needed; the exact K of a full graph is
        `stationary_load(...).capacity`.

        Raises:
            UserError: loss not in (0, 1], or heard is not [N] in [0, 1].
        """
        from scipy.optimize import minimize_scalar  # trainings begin without it

        loss = between("loss", loss, np.finfo(np.float64).tiny, 1)
        weights = self._weights(heard)
        if not (weights * self.mean).any():
            return 0
        log_mean = _LogMean(self.rate, self.M, weights)

        def bound(log_log_s: float) -> float:
            log_s = exp(log_log_s)
            return (log_mean(expm1(log_s)) - log(loss)) / log_s

        # The bound on K + 1 falls and rises once in log s; where the mean is infinite it is inf.
        best = minimize_scalar(bound, bounds=(log(1e-9), log(10.0)), method="bounded", options={"xatol": 1e-3})
        return int(best.fun * (1.0 + PRECISION))

    def tail_bound(self, k: Any, heard: Any = None) -> Array:
        """Chernoff's bound on P(load > k), k any shape, of the whole load or of what an agent hears.

        Raises:
            UserError: heard is not [N] in [0, 1].
        """
        k = numbers(k, "k")
        log_mean = _LogMean(self.rate, self.M, self._weights(heard))
        log_s = np.geomspace(1e-4, 3.0, TAIL_GRID)
        logs = np.array([log_mean(expm1(v)) for v in log_s.tolist()])
        return np.exp(np.minimum((logs - (k[..., None] + 1.0) * log_s).min(-1), 0.0))

    def _weights(self, heard: Any) -> Array:
        weights = np.ones(len(self.mean)) if heard is None else numbers(heard, "heard")
        if weights.shape != self.mean.shape or not ((weights >= 0) & (weights <= 1)).all():
            raise UserError(f"heard has shape {weights.shape}, and must be [{len(self.mean)}] in [0, 1]")
        return weights

    def _fitting(self, hears: Any) -> Array:
        h = matrix(hears, "hears")
        if h.shape != self.M.shape:
            raise UserError(f"hears has shape {h.shape}, and the load is of {len(self.M)} agents")
        return h


def load_by_type(rate: Any, M: Any) -> LoadByType:
    """The stationary load by source, rate [N] Poisson new words a step by each agent, M [N, N] as in `by_type`.

    A multi-type Galton-Watson process with immigration (Quine 1970, The Multi-Type Galton-Watson Process with
    Immigration). mean = rate (I - M)^-1; covariance C = M^T C M + diag(rate + mean (M * (1 - M))), since the repeats of
    a transmission are independent. The series of C is summed by doubling: all its terms are positive.

    Raises:
        UserError: rate is not [N] and at least 0, M is not [N, N] in [0, 1], or R = rho(M) >= 1.
    """
    M = matrix(M)
    rate = numbers(rate, "rate")
    if M.ndim != 2 or rate.shape != M.shape[:1]:
        raise UserError(f"rate has shape {rate.shape} and M {M.shape}; they must be [N] and [N, N]")
    if not ((rate >= 0) & np.isfinite(rate)).all():
        raise UserError(f"rate is {rate.tolist()}, and must be numbers of at least 0")
    radius = float(spectral_radius(M))
    if radius >= 1.0 - 1e-12:
        raise UserError(f"M has R = {radius:.6g}, and must stay below 1: at R >= 1 the load grows without end")
    mean = np.linalg.solve((np.eye(len(M)) - M).T, rate)
    covariance = np.diag(rate + mean @ (M * (1.0 - M)))
    power = M
    for _ in range(MOST_DOUBLINGS):
        more = power.T @ covariance @ power
        covariance = covariance + more
        if more.max() <= np.finfo(np.float64).eps * covariance.max():
            break
        power = power @ power
    return LoadByType(mean, covariance, rate, M)


class _LogMean:
    """log E s^(heard transmissions) at s = 1 + x: the sum over t of rate . u_t, where 1 + u_t is the t-fold iterate of
    the generating functions, u_0 = weights x and u_(t+1) = prod_j (1 + M_ij u_j) - 1."""

    def __init__(self, rate: Array, M: Array, weights: Array) -> None:
        from scipy.sparse import csr_array  # trainings begin without it

        self.rate, self.weights, self.M = rate, weights, csr_array(M)
        self.rows = np.repeat(np.arange(len(M)), np.diff(self.M.indptr))
        # Twice as many as small iterates need to fade; more means an x where the mean is infinite, or nearly so.
        self.most_steps = len(M) + int(2.0 * -log(PRECISION) / (1.0 - float(spectral_radius(M))))

    def __call__(self, x: float) -> float:
        u = self.weights * x
        total = 0.0
        for _ in range(self.most_steps):
            total += float(self.rate @ u)
            largest = float(u.max())
            if largest <= PRECISION * x:
                return total
            if largest > 1e6 * (x + 1.0):
                return inf
            u = np.expm1(np.bincount(self.rows, np.log1p(self.M.data * u[self.M.indices]), len(u)))
        return inf
