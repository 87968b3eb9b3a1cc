"""How large a channel of words is, where its user does not say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from popcomm.channels.broadcast.decisions import CountMin
from popcomm.channels.broadcast.reflex import Reflex
from popcomm.channels.broadcast.reflexes import Publishing, WordRepetition
from popcomm.channels.topology import Full, Topology
from popcomm.theory import load_variance, mean_load, radius_bound

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # trainings begin without it

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
    heard: float  # of them, by the agent that hears most: the mean
    heard_deviation: float


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
        capacity = math.ceil(held) if load is None else _room(load.mean, load.deviation)
    if inbox is None and load is not None:
        inbox = _room(load.heard, load.heard_deviation)
    return Dimensions(capacity, capacity if inbox is None else min(inbox, capacity))


def expected_load(topology: Topology, reflexes: Sequence[Reflex], num_agents: int, rate: float) -> Load | None:
    """Mean and standard deviation of the load, `rate` published words included; None where R may be 1 or more.

    By `popcomm.theory`, with M[i, j] = P(j repeats a transmission by i) and the publisher as the last
    source, whom all hear and who repeats nothing. Several repetitions count as one that repeats as often.
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
    if radius_bound(spread) >= 1:
        return None
    sources = np.append(np.ones(num_agents), rate)
    from scipy.sparse import csr_array, hstack, vstack  # trainings begin without it

    published = vstack([spread, csr_array(chances[None, :])])
    M = hstack([published, csr_array((num_agents + 1, 1))]).tocsr()
    by_source = mean_load(sources, M)
    heard = hears.T @ by_source[:-1]
    busiest = np.append(hears[:, [int(np.argmax(heard))]].toarray().ravel(), 1.0)
    variance, heard_variance = (load_variance(sources, M, who) for who in (np.ones_like(sources), busiest))
    return Load(float(by_source.sum()), math.sqrt(variance), float(heard.max()) + rate, math.sqrt(heard_variance))


def _room(mean: float, deviation: float) -> int:
    # A millionth less, or a rounding error beyond a whole number would be one more.
    return math.ceil(mean + DEVIATIONS * deviation - 1e-6)


def _hears(topology: Topology, num_agents: int) -> csr_array:
    """hears[i, j] = 1 where j hears i, itself included; of graphs that change, as if on a ring with their inbox."""
    from scipy.sparse import csr_array

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
