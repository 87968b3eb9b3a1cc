"""Whether a word dies out, and how long that takes, where all agents hear every transmission."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from popcomm.theory.checks import Array, probabilities, whole_numbers
from popcomm.theory.offspring import excess, union

CHUNK_ELEMENTS = 2**17  # 1 MiB of float64: the arrays of one Newton step stay in the cache
MOST_STEPS = 200
EPS = float(np.finfo(np.float64).eps)


def extinction_probability(p: Any) -> Array:
    """The chance that the repeats of one transmission end, p [..., N] -> [...] float64.

    The smallest root in [0, 1] of s = G(s) = prod(1 - p_i + p_i s) (Harris 1963, The Theory of Branching Processes,
    theorem I.6.1): 1 iff m = sum p_i <= 1, except where P(X = 1) = 1 (one p_i = 1, the rest 0), which never ends.
    An m within rounding of 1 counts as 1.

    Raises:
        UserError: p is not [..., N] in [0, 1].
    """
    p = probabilities(p)
    flat = p.reshape(-1, p.shape[-1])
    rows = max(1, CHUNK_ELEMENTS // p.shape[-1])
    result = np.empty(len(flat))
    for start in range(0, len(flat), rows):
        result[start : start + rows] = _extinction(flat[start : start + rows])
    return result.reshape(p.shape[:-1])


def alive_probability(p: Any, generations: Any) -> Array:
    """The chance that a word has transmissions in generation t, p [..., N], generations [*t] -> [..., *t] float64.

    1 - e_t, where e_0 = 0 and e_{t+1} = G(e_t). The survival is iterated as such, so that a chance of 1e-100 has its
    digits. Generation 0 is the word itself: 1.

    Raises:
        UserError: p is not [..., N] in [0, 1], or generations are not whole numbers of at least 0.
    """
    p = probabilities(p)
    wanted = whole_numbers(generations, "generations")
    return orbit(lambda d: union(p * d[..., None]), np.ones(p.shape[:-1]), wanted)


def orbit(step: Callable[[Array], Array], start: Array, times: Array) -> Array:
    """The iterates of `step` from `start` [...] at `times` [*t] -> [..., *t], of a step that only makes smaller."""
    order, where = np.unique(times, return_inverse=True)
    result = np.empty((*start.shape, len(order)))
    now, d = 0, start
    for i, t in enumerate(order.tolist()):
        while now < t:
            following = np.minimum(d, step(d))  # near the fixed point rounding would lift it by a digit
            # At a fixed point every later generation is known.
            now = t if np.array_equal(following, d) else now + 1
            d = following
        result[..., i] = d
    return result[..., where.reshape(-1)].reshape((*start.shape, *times.shape))


def _extinction(p: Array) -> Array:
    """p [R, N] -> [R]."""
    result = np.ones(len(p))
    never = (p == 1).any(1)  # G(0) = 0
    result[never] = 0.0
    above = excess(p)
    rows = np.flatnonzero((above > 0) & ~never)
    if len(rows):
        survival = _survival(p[rows], above[rows])
        result[rows] = 1.0 - survival
        likely = rows[survival > 0.5]
        result[likely] = _polished(p[likely], result[likely])
    return result


def _survival(p: Array, above: Array) -> Array:
    """The root d > 0 of d = 1 - prod(1 - p_i d), p [R, N] without a 1, above = m - 1 > 0 [R] -> [R].

    With u_i the union of the first i events p_j d, 1 - prod(1 - p_i d) = d (m - Q(d)), Q(d) = sum_i p_i u_{i-1}(d):
    the root 0 is divided out, and Q(d) = m - 1 has only positive terms. Q is increasing and concave, hence Newton's
    iterates from 0 rise to the root, quadratically also where the two roots nearly meet.
    """
    later = p[:, 1:]
    d = above / (later * np.cumsum(p, 1)[:, :-1]).sum(1)
    active = np.arange(len(p))
    for _ in range(MOST_STEPS):
        x = p * d[active, None]
        log_none = np.cumsum(np.log1p(-x), 1)[:, :-1]
        rate = np.exp(log_none) * np.cumsum(p / (1.0 - x), 1)[:, :-1]
        later = p[:, 1:]
        step = (above + (later * np.expm1(log_none)).sum(1)) / (later * rate).sum(1)
        d[active] = np.clip(d[active] + step, 0.0, 1.0)
        going = step > 4 * EPS * d[active]
        if not going.any():
            break
        active, p, above = active[going], p[going], above[going]
    return d


def _polished(p: Array, e: Array) -> Array:
    """Small e to full relative precision: Newton on G(e) - e, from e right to 1e-15."""
    for _ in range(2):
        factors = (1.0 - p) + p * e[:, None]
        g = np.exp(np.log(factors).sum(1))
        e = np.maximum(e - (g - e) / (g * (p / factors).sum(1) - 1.0), 0.0)
    return e
