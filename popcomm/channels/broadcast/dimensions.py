"""How large a channel of words is, where its user does not say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, identity
from scipy.sparse.linalg import spsolve

from popcomm.channels.broadcast.decisions import CountMin
from popcomm.channels.broadcast.reflex import Reflex
from popcomm.channels.broadcast.reflexes import Publishing, WordRepetition
from popcomm.channels.topology import Full, Topology

DEVIATIONS = 3.0  # of the load, that there is room for beyond its mean
# Where words would multiply without end, and something else holds them: so many times what is said in a step.
UNBOUND = 4


class Dimensions(NamedTuple):
    """How much fits."""

    capacity: int  # L, transmissions of a world in a step; what is above is dropped
    inbox: int  # K, of them, that an agent can hear


class Load(NamedTuple):
    """Transmissions a step when all agents speak in every step."""

    mean: float
    deviation: float
    heard: float  # of them, by the agent that hears most


def dimensions(
    topology: Topology, reflexes: Sequence[Reflex], num_agents: int, capacity: int | None, inbox: int | None
) -> Dimensions:
    """The sizes asked for; where none are, room for three standard deviations of the load when all speak.

    Where R is 1 or more (a brake, a cap or the drops then hold the words), four times what is said and published.
    `popcomm channel` computes sizes for a loss of one's own.
    """
    rate = sum(reflex.rate for reflex in reflexes if isinstance(reflex, Publishing))
    load = expected_load(topology, reflexes, num_agents, rate)
    if capacity is None:
        held = UNBOUND * (num_agents + rate)
        capacity = math.ceil(held if load is None else load.mean + DEVIATIONS * load.deviation)
    if inbox is None and load is not None:
        # What one agent hears varies as the whole does, in proportion.
        spread = load.deviation * math.sqrt(load.heard / load.mean)
        inbox = math.ceil(load.heard + DEVIATIONS * spread)
    return Dimensions(capacity, capacity if inbox is None else min(inbox, capacity))


def expected_load(topology: Topology, reflexes: Sequence[Reflex], num_agents: int, rate: float) -> Load | None:
    """Mean and standard deviation of the load, `rate` published words included; None where R is 1 or more.

    With M[i, j] = P(j repeats a transmission by i), mean loads by source are (I - M^T)^-1 (1 + rate p), since published
    words are heard by all. The variance is that of a Galton-Watson process with immigration nu,
    (s2 mu + nu) / (1 - R^2), with s2 = R, an upper bound.
    """
    hears = _hears(topology, num_agents)
    # As if all heard themselves, whether there is feedback or not.
    indegree = np.asarray(hears.sum(0)).ravel()
    chances = np.zeros(num_agents)
    for reflex in reflexes:
        if isinstance(reflex, WordRepetition):
            decision = reflex.decision
            decision.bind(num_agents)
            chance = decision.probabilities(indegree)
            chances = chances + chance
            if isinstance(decision, CountMin) and np.max(chance) >= 1:
                return None
    spread = hears.multiply(chances[None, :]).tocsr()
    # By the largest column or row sum, a bound of the spectral radius: exact for the local rule.
    reproduction = min(float(spread.sum(0).max()), float(spread.sum(1).max()))
    if reproduction >= 1:
        return None
    by_source = spsolve((identity(num_agents) - spread.T).tocsc(), 1.0 + rate * chances)
    mean, fresh = float(by_source.sum()) + rate, num_agents + rate
    variance = (reproduction * mean + fresh) / (1 - reproduction**2)
    return Load(mean, math.sqrt(variance), float((hears.T @ by_source).max()) + rate)


def _hears(topology: Topology, num_agents: int) -> csr_array:
    """hears[i, j] = 1 where j hears i, itself included; of graphs that change, as if on a ring with their inbox."""
    n = num_agents
    if type(topology) is Full:
        return csr_array(np.ones((n, n)))
    own = np.arange(n)
    if topology.static:
        links = topology.connect(torch.ones(1, n, dtype=torch.bool))
        receiver, slot = links.mask[0].numpy().nonzero()
        sender = links.senders[0].numpy()[receiver, slot]
    else:
        k = topology.inbox_size(n)
        receiver = np.repeat(own, k)
        sender = (receiver + np.tile(np.arange(1, k + 1), n)) % n
    rows, columns = np.concatenate([sender, own]), np.concatenate([receiver, own])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
