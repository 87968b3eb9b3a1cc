"""How large a channel of words is, where its user does not say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from popcomm.channels.reflexes import Reflex
from popcomm.channels.topology import Full, Topology


class Dimensions(NamedTuple):
    """How much fits."""

    capacity: int  # L, transmissions of a world in a step; what is above is dropped
    inbox: int  # K, of them, that an agent can hear


def dimensions(
    topology: Topology, reflexes: Sequence[Reflex], num_agents: int, capacity: int | None, inbox: int | None
) -> Dimensions:
    """The sizes asked for; where none are, such that almost nothing is lost when all agents speak in every step.

    The load then has the mean nu / (1 - R) and the variance (s2 mu + nu) / (1 - R^2) of a Galton-Watson process with
    immigration nu, with s2 = R, an upper bound; there is room for three standard deviations. For what a single agent
    hears, its share of the load is taken as a Poisson mean.
    """
    reproduction = [getattr(getattr(r, "decision", None), "reproduction", 0.0) for r in reflexes]
    known = all(r is not None for r in reproduction)
    spread = sum(r for r in reproduction if r is not None)
    fresh = num_agents + sum(getattr(r, "rate", 0.0) for r in reflexes)
    if capacity is None:
        if known and spread < 1:
            mean = fresh / (1 - spread)
            capacity = math.ceil(mean + 3 * math.sqrt((spread * mean + fresh) / (1 - spread**2)))
        else:
            capacity = math.ceil(4 * fresh)
    if inbox is None:
        share = 1.0 if type(topology) is Full else (topology.inbox_size(num_agents) + 1) / num_agents
        expected = share * capacity
        inbox = min(capacity, capacity if share >= 1 else math.ceil(expected + 3 * math.sqrt(expected)))
    return Dimensions(capacity, min(inbox, capacity))
