"""Reflexes, decisions and topologies of a user's own: one class with one method each."""

import numpy as np
import pytest
import torch

from popcomm.channels import Topology
from popcomm.channels.broadcast.decisions import Bernoulli, Decision
from popcomm.channels.broadcast.log import Log, entries
from popcomm.channels.broadcast.moment import Moment
from popcomm.channels.broadcast.reflexes import (
    ImmediateFeedback,
    Reflex,
)
from popcomm.channels.links import Links
from popcomm.errors import UserError
from tests.channels.broadcast.airs import A, B, C, D, Fixed, inboxes, on_air, opened, repeating, step

ALWAYS = Bernoulli(1.0)
FEEDBACK = ImmediateFeedback()


class Parrot(Reflex):
    """Seat 0 answers every step with a word of its own, in another integer type; it takes the turn."""

    name = "parrot"
    takes_turn = True

    def transmissions(self, moment: Moment) -> Log:
        return entries(np.arange(moment.num_worlds), np.full(moment.num_worlds, B, np.int64), 0, 1)


class Silencer(Reflex):
    """Takes turns, and puts a word on the air that is nobody's."""

    takes_turn = True

    def transmissions(self, moment: Moment) -> Log:
        return entries(np.arange(moment.num_worlds), np.full(moment.num_worlds, C, np.int32), -1)


class Seats(Decision):
    """Even seats repeat surely."""

    def probabilities(self, indegree: np.ndarray) -> np.ndarray:
        return (np.arange(indegree.shape[-1]) % 2 == 0).astype(float)


class Broken(Decision):
    def probabilities(self, indegree: np.ndarray) -> float:
        return 1.5


def test_a_reflex_of_ones_own_is_a_class_with_one_method():
    air = opened(2, [Fixed()], worlds=2, capacity=9)
    step(air, [A, 0])
    assert on_air(air, 1) == [(A, 0, 0)] + [(D, -1, 0)] * 5


def test_a_reflex_of_ones_own_may_take_turns():
    air = opened(2, [Parrot()], capacity=9)
    step(air, [A, C])
    assert on_air(air) == [(B, 0, 1), (C, 1, 0)]
    assert step(air).messages.dtype == torch.int32


def test_published_words_of_a_reflex_that_takes_turns_take_nobodys():
    air = opened(2, [Silencer(), Parrot()], capacity=9)
    step(air, [A, D])
    assert on_air(air) == [(B, 0, 1), (C, -1, 0), (D, 1, 0)]


def test_a_decision_of_ones_own_is_a_class_with_one_method():
    air = opened(4, repeating(Seats()))
    step(air, [A, 0, 0, 0])
    step(air)
    assert on_air(air) == [(A, 0, 1), (A, 2, 1)]


def test_a_decision_that_gives_no_probabilities_is_refused_when_it_does():
    air = opened(2, repeating(Broken()))
    step(air, [A, 0])
    with pytest.raises(UserError, match=r"decision Broken gives 1\.5.*\[0, 1\]"):
        step(air)


class Turning(Topology):
    """In step t, seat j hears seat j - t - 1 only."""

    def __init__(self) -> None:
        self.offset = 0

    def inbox_size(self, num_agents: int) -> int:
        return 1

    def connect(self, present, positions=None, torus=None) -> Links:
        worlds, n = present.shape
        self.offset += 1
        senders = (torch.arange(n) - self.offset).remainder(n).expand(worlds, n).unsqueeze(-1)
        return Links(senders, present.gather(1, senders.squeeze(-1)).unsqueeze(-1))


def test_a_topology_of_ones_own_may_change_in_each_step():
    """The word goes by 1 seat, then (first call: 1 at the step in which it is said) by 2, 3 and 4: 0, 2, 5, 9."""
    air = opened(11, repeating(ALWAYS, feedback=False), worlds=2, topology=Turning(), capacity=9, inbox=3)
    step(air, [A] + [0] * 10)
    for seat, generation in ((2, 1), (5, 2), (9, 3)):
        assert [len(row) for row in inboxes(step(air), 1)] == [int(j == seat) for j in range(11)]
        assert on_air(air, 1) == [(A, seat, generation)]


def test_a_topology_without_inboxes_is_refused():
    from popcomm.channels import Routed

    with pytest.raises(UserError, match="routed has none"):
        opened(3, [FEEDBACK], topology=Routed(), capacity=9, inbox=1)
