"""How large a channel is where nobody says: against the theory, and small ones solved on paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from popcomm.channels import Custom, Full, Ring, Topology
from popcomm.channels.broadcast.decisions import Bernoulli, Decision, LocalRule, PerAgent
from popcomm.channels.broadcast.dimensions import dimensions, expected_load
from popcomm.channels.broadcast.reflexes import Publishing, WordRepetition
from popcomm.theory import load_by_type, next_generation_matrix

# [i, j]: j hears i. Agent 0 hears all and is heard by all.
HUB = [[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
EVERYBODY = np.ones((4, 4))
RING = EVERYBODY - np.eye(4)[[2, 3, 0, 1]]  # two neighbours, and itself


def test_two_agents_have_the_load_that_is_solved_on_paper() -> None:
    # p = 1/4 each: R = 1/2 and mean = 2 / (1 - R); s2 = 2 (1/4) (3/4), variance = (s2 mean + 2) / (1 - R^2) = 14/3.
    load = expected_load(Full(), [WordRepetition(LocalRule(0.5))], 2, 0.0)
    assert load == pytest.approx((4.0, (14 / 3) ** 0.5, 4.0, (14 / 3) ** 0.5), rel=1e-12)


def test_published_words_and_their_repeats_are_part_of_the_load() -> None:
    # p = 1/2, a word said and one published in a step: mean own = (1 + 1/2) / (1 - 1/2) = 3, and of nobody 1. Variance
    # own = (1 + 3/4 + 1/4 + (1/2)^2) / (1 - (1/2)^2) = 3, and of nobody 1; what is published in a step is repeated in
    # the next, so they are independent.
    load = expected_load(Full(), [WordRepetition(Bernoulli(0.5)), Publishing(rate=1.0)], 1, 1.0)
    assert load == pytest.approx((4.0, 2.0, 4.0, 2.0), rel=1e-12)


@pytest.mark.parametrize(
    ("topology", "hears"), [(Full(), EVERYBODY), (Ring(2), RING), (Custom(HUB), np.array(HUB) + np.eye(4))]
)
@pytest.mark.parametrize("decision", [LocalRule(0.9), PerAgent([0.3, 0.05, 0.2, 0.1])])
@pytest.mark.parametrize("rate", [0.0, 2.0])
def test_a_channel_has_room_for_three_deviations_of_the_load_of_the_theory(
    topology: Topology, hears: Any, decision: Decision, rate: float
) -> None:
    p = decision.probabilities(hears.sum(0))
    M = np.block([[next_generation_matrix(hears, p), np.zeros((4, 1))], [p, 0.0]])
    exact = load_by_type([1, 1, 1, 1, rate], M)
    mean, variance = exact.heard(np.block([[hears, np.zeros((4, 1))], [np.ones(4), 0.0]]))
    busiest = int(np.argmax(mean))
    size = dimensions(topology, [WordRepetition(decision), Publishing(rate=rate)], 4, None, None)
    assert size.capacity == np.ceil(exact.total_mean + 3 * exact.total_var**0.5)
    assert size.inbox == min(size.capacity, np.ceil(mean[busiest] + 3 * variance[busiest] ** 0.5))


def test_where_words_may_multiply_without_end_there_is_room_for_four_times_what_is_said_and_published() -> None:
    reflexes = [WordRepetition(Bernoulli(0.5)), Publishing(rate=1.5)]  # R = 2
    assert dimensions(Full(), reflexes, 4, None, None) == (22, 22)
