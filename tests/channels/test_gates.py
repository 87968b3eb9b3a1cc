"""Who is served: the most urgent first, and what happens to those who wait."""

from __future__ import annotations

import pytest
import torch

from popcomm.channels.gates import Budget, Gates, make_budget, make_gates, serve
from popcomm.channels.links import Links
from popcomm.channels.manner import Drawn, draw, log_prob


def links(seats: int) -> Links:
    """All hear all others, one world."""
    senders = torch.tensor([[n for n in range(seats) if n != seat] for seat in range(seats)])
    return Links(senders.unsqueeze(0), torch.ones(1, seats, seats - 1, dtype=torch.bool))


def served(priority: list[float], budget: Budget, waited: list[int] | None = None) -> list[list[int]]:
    seats = len(priority)
    waiting = torch.tensor([waited or [0] * seats])
    spoke = torch.ones(1, seats, dtype=torch.bool)
    return serve(links(seats), torch.tensor([priority]), waiting, spoke, budget).links.senders[0].tolist()


def test_of_equal_priorities_the_longest_refused_comes_first_and_then_the_first_of_the_topology() -> None:
    assert served([0.5, 0.5, 0.5, 0.5], Budget(1)) == [[1], [0], [0], [0]]
    assert served([0.5, 0.5, 0.5, 0.5], Budget(1), [0, 0, 3, 0]) == [[2], [2], [0], [2]]
    assert served([0.5, 0.6, 0.5, 0.5], Budget(2), [0, 0, 3, 0]) == [[1, 2], [2, 0], [1, 0], [1, 2]]


def test_who_waits_for_ever_is_served_where_patience_ends() -> None:
    low, waiting = [0.9, 0.8, 0.1], torch.zeros(1, 3, dtype=torch.int64)
    for patience, turns in ((None, []), (2, [2, 5, 8])):
        waiting, heard = torch.zeros(1, 3, dtype=torch.int64), []
        for step in range(10):
            spoke = torch.ones(1, 3, dtype=torch.bool)
            found = serve(links(3), torch.tensor([low]), waiting, spoke, Budget(1, patience))
            waiting = found.waited
            heard += [step] * bool((found.links.senders[0, :2] == 2).any())
        assert heard == turns
        assert bool(waiting[0, 2] == 10) == (patience is None)


def test_a_message_that_is_not_there_takes_nobodys_place() -> None:
    there = links(3)
    mask = torch.tensor([[[False, True], [True, True], [False, False]]])
    spoke = torch.ones(1, 3, dtype=torch.bool)
    waited = torch.zeros(1, 3, dtype=torch.int64)
    found = serve(Links(there.senders, mask), torch.tensor([[0.9, 0.9, 0.1]]), waited, spoke, Budget(1))
    assert found.links.mask[0, :, 0].tolist() == [True, True, False]
    assert found.links.senders[0, :2, 0].tolist() == [2, 0]
    assert found.refused[0].tolist() == [[False, False], [False, True], [False, False]]
    assert found.waited.tolist() == [[0, 0, 0]]  # the last was taken by the first; the second nobody could hear


def test_a_decision_is_as_likely_as_it_is_often() -> None:
    manner = torch.tensor([0.4, 0.3, 0.5]).expand(40_000, 3)
    drawn = draw(manner, True, True, torch.Generator().manual_seed(1))
    assert float(drawn.opens.float().mean()) == pytest.approx(torch.tensor(0.4).sigmoid().item(), abs=0.015)
    assert float(drawn.haste.std()) == pytest.approx(0.5, abs=0.015)
    one = Drawn(torch.tensor(True), torch.tensor(0.8))
    expected = torch.distributions.Normal(0.3, 0.5).log_prob(torch.tensor(0.8)) + torch.tensor(0.4).sigmoid().log()
    assert float(log_prob(manner[0], one, True)) == pytest.approx(float(expected), abs=1e-6)
    shut = Drawn(torch.tensor(False), torch.tensor(0.8))  # of what is not said the priority is no decision
    assert float(log_prob(manner[0], shut, True)) == pytest.approx(torch.tensor(-0.4).sigmoid().log().item(), abs=1e-6)


def test_what_is_told_in_a_word_is_told_in_a_mapping() -> None:
    assert make_gates("both") == make_gates({"kind": "both"}) == Gates(True, True)
    assert make_gates(None) == Gates()
    assert make_budget(2) == make_budget({"messages": 2}) == Budget(2)
    assert not make_budget(None).ranks
