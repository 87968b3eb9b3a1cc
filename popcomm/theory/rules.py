"""How often agents may repeat what they hear, so that words die out."""

from __future__ import annotations

from typing import Any

import numpy as np

from popcomm.errors import UserError
from popcomm.theory.by_type import spectral_radius
from popcomm.theory.checks import Array, at_least_zero, matrix


def repetition_threshold(hears: Any) -> Array:
    """The common p at which R = rho(hears * p) is 1, hears [..., N, N] -> [...]: below it every word dies out.

    1 / rho(hears), which is above 1 on a sparse graph; inf where nobody hears in a cycle, so that every word ends.

    Raises:
        UserError: hears is not square, or not in [0, 1].

    >>> float(repetition_threshold([[1, 1], [1, 1]]))
    0.5
    """
    radius = spectral_radius(matrix(hears, "hears"))
    with np.errstate(divide="ignore"):
        return 1.0 / radius


def local_rule(hears: Any, target: float) -> Array:
    """p_j = target / (how many agents j hears, itself included where it does), hears [..., N, N] -> [..., N].

    The columns of hears * p then sum to target, so that R = rho = target exactly on any graph in which everybody hears
    somebody, and no agent has to know more than its own inbox. An agent that hears nobody has p = 0.

    Raises:
        UserError: hears outside [0, 1], target below 0, or an agent that would need a p above 1.
    """
    heard = matrix(hears, "hears")
    target = at_least_zero(target, "target")
    indegree = heard.sum(-2)
    p = np.divide(target, indegree, out=np.zeros_like(indegree), where=indegree > 0)
    if (p > 1).any():
        where = tuple(int(i) for i in np.argwhere(p > 1)[0])
        raise UserError(
            f"target is {target:g}, and agent {where[-1]} hears {indegree[where]:g} agents: it would have to repeat "
            f"with probability {p[where]:.4g}; at most target = {heard.sum(-2)[indegree > 0].min():g}"
        )
    return p
