"""The same questions where agents hear different agents: a transmission's future depends on who sent it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.errors import UserError
from popcomm.theory.checks import Array, matrix, probabilities, whole_numbers
from popcomm.theory.extinction import orbit
from popcomm.theory.offspring import union

# A spectral radius this near 1 counts as 1: eigenvalues of a thousand agents are right to about 1e-13.
CRITICAL = 1e-12
MOST_STEPS = 200
EPS = float(np.finfo(np.float64).eps)


def next_generation_matrix(hears: Any, p: Any) -> Array:
    """M[i, j], the chance that agent j repeats a transmission by i: hears [..., N, N], p [..., N] -> [..., N, N].

    hears[i, j] = P(j hears i), True or False on a fixed graph; on the diagonal, immediate feedback.

    Raises:
        UserError: hears or p outside [0, 1], or of shapes that do not fit.
    """
    heard, p = matrix(hears, "hears"), probabilities(p)
    if p.shape[-1] != heard.shape[-1]:
        raise UserError(f"p is for {p.shape[-1]} agents, and hears for {heard.shape[-1]}")
    return heard * p[..., None, :]


def spectral_radius(M: Any) -> Array:
    """The largest eigenvalue of a non-negative matrix, M [..., N, N] -> [...]: R, repeats per transmission in the end.

    Per strongly connected class: a graph without cycles has exactly 0, whatever its rounding errors.

    Raises:
        UserError: M is not square, or not in [0, 1].
    """
    return np.vectorize(_spectral_radius, signature="(n,n)->()", otypes=[np.float64])(matrix(M))


def extinction_by_type(M: Any) -> Array:
    """The chance that the repeats of a transmission by agent i end, M [..., N, N] -> [..., N].

    Its offspring are independent Bernoulli(M[i, j]) over j: the least solution in [0, 1] of
    e_i = prod_j (1 - M_ij + M_ij e_j). 1 unless i reaches a strongly connected class of spectral radius above 1, or a
    cycle on which every repeat is sure (Harris 1963, theorem II.7.1; Sevastyanov for reducible M). Newton's iterates
    from 0 rise to it (Etessami and Yannakakis 2009, Recursive Markov Chains, Stochastic Grammars, and Monotone Systems
    of Nonlinear Equations, JACM 56).

    Raises:
        UserError: M is not square, or not in [0, 1].
    """
    return np.vectorize(_extinction, signature="(n,n)->(n)", otypes=[np.float64])(matrix(M))


def alive_by_type(M: Any, generations: Any) -> Array:
    """The chance that generation t of a transmission by agent i is not empty, M [..., N, N] -> [..., N, *t].

    Raises:
        UserError: M is not square or not in [0, 1], or generations are not whole numbers of at least 0.
    """
    M = matrix(M)
    times = whole_numbers(generations, "generations")
    return orbit(lambda d: union(M * d[..., None, :]), np.ones(M.shape[:-1]), times)


def progeny_moments(M: Any) -> tuple[Array, Array]:
    """Mean and variance of all transmissions of a word, it included, by its sender: M [..., N, N] -> two [..., N].

    With Z_i = 1 + sum_j B_ij Z_j, B_ij independent Bernoulli(M_ij): mean = (I - M)^-1 1, and, since
    Var(B Z) = M_ij Var Z + M_ij (1 - M_ij) (E Z)^2 (law of total variance), var = (I - M)^-1 (M * (1 - M)) mean^2.
    With all agents alike these are 1 / (1 - m) and s2 / (1 - m)^3. Both are inf for a sender that reaches a class of
    spectral radius 1 or above.

    Raises:
        UserError: M is not square, or not in [0, 1].
    """
    mean, var = np.vectorize(_moments, signature="(n,n)->(n),(n)", otypes=[np.float64] * 2)(matrix(M))
    return mean, var


def _classes(M: Array) -> tuple[NDArray[np.int32], Array]:
    """Every agent's strongly connected class [N], and every class's spectral radius [C]."""
    from scipy.sparse.csgraph import connected_components  # trainings begin without it

    count, label = connected_components(M > 0, directed=True, connection="strong")
    radius = np.empty(count)
    sizes = np.bincount(label, minlength=count)
    radius[label] = np.diagonal(M)  # right for classes of one
    for c in np.flatnonzero(sizes > 1):
        members = np.flatnonzero(label == c)
        radius[c] = np.abs(np.linalg.eigvals(M[np.ix_(members, members)])).max()
    return label, radius


def _reaching(M: Array, goal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which agents have a path to `goal`, themselves included, [N]."""
    edges = M > 0
    found = goal
    while True:
        more = found | edges[:, found].any(1)
        if np.array_equal(more, found):
            return found
        found = more


def _spectral_radius(M: Array) -> Array:
    return _classes(M)[1].max()


def _extinction(M: Array) -> Array:
    label, radius = _classes(M)
    sure = M == 1
    forever = np.ones(len(M), dtype=bool)
    while not np.array_equal(forever, kept := forever & sure[:, forever].any(1)):
        forever = kept  # has a sure repeat among those that have one
    d = np.where(forever, 1.0, 0.0)
    open_ = np.flatnonzero(_reaching(M, forever | (radius > 1.0 + CRITICAL)[label]) & ~forever)
    if len(open_):
        d[open_] = 1.0
        _survive(M, d, open_)
    return 1.0 - d


def _survive(M: Array, d: Array, open_: NDArray[np.intp]) -> None:
    """Newton on d = 1 - prod(1 - M d) for the agents `open_`, in place; d falls to the largest solution."""
    rows = M[open_]
    identity = np.eye(len(open_))
    for _ in range(MOST_STEPS):
        none = 1.0 - rows * d
        survival = union(rows * d)
        slope = _products_of_others(none)[:, open_] * rows[:, open_]
        step = np.linalg.solve(identity - slope, d[open_] - survival)
        d[open_] = np.clip(d[open_] - step, 0.0, 1.0)
        if np.abs(step).max() <= 4 * EPS:
            return


def _products_of_others(x: Array) -> Array:
    """prod over l != j of x[i, l], [R, N] -> [R, N], also where some x are 0."""
    ones = np.ones((len(x), 1))
    before = np.cumprod(np.hstack([ones, x[:, :-1]]), 1)
    after = np.cumprod(np.hstack([ones, x[:, :0:-1]]), 1)[:, ::-1]
    return before * after


def _moments(M: Array) -> tuple[Array, Array]:
    label, radius = _classes(M)
    mean, var = np.full(len(M), np.inf), np.full(len(M), np.inf)
    ends = np.flatnonzero(~_reaching(M, (radius >= 1.0 - CRITICAL)[label]))
    if len(ends):
        inner = M[np.ix_(ends, ends)]
        rest = np.eye(len(ends)) - inner
        mean[ends] = np.linalg.solve(rest, np.ones(len(ends)))
        var[ends] = np.linalg.solve(rest, (inner * (1.0 - inner)) @ mean[ends] ** 2)
    return mean, var
