"""Curricula: how many links are left, which go first, and that a session follows the clock."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from popcomm.channels import Channel, Curriculum, Full, KNearest, Ring, Symbols, make_topology
from popcomm.channels.session import Session
from popcomm.errors import UserError
from popcomm.schedules import Clock

FADE = {"kind": "linear", "begin": 100, "end": 200}
N = 6


def left(topology: Curriculum, strength: float, positions: torch.Tensor | None = None) -> list[list[int]]:
    """Whom each of N seats hears, in one world in which all are present."""
    links = topology.thinned(topology.connect(torch.ones(1, N, dtype=torch.bool), positions), strength)
    return [sorted(s[m].tolist()) for s, m in zip(links.senders[0], links.mask[0], strict=True)]


def test_at_first_all_hear_as_in_the_dense_topology_and_in_the_end_the_least() -> None:
    topology = Curriculum(FADE, least=2)
    full = Full().connect(torch.ones(1, N, dtype=torch.bool))
    assert left(topology, 1.0) == [sorted(s.tolist()) for s in full.senders[0]]
    assert [len(heard) for heard in left(topology, 0.0)] == [2] * N


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 5), (0.75, 4), (0.5, 3), (0.26, 2), (0.0, 1)])
def test_links_fall_in_proportion_to_the_strength(strength: float, expected: int) -> None:
    assert [len(heard) for heard in left(Curriculum(FADE), strength)] == [expected] * N


@pytest.mark.parametrize("keep", ["first", "nearest", "drawn"])
def test_a_link_that_is_gone_does_not_come_back(keep: str) -> None:
    positions = torch.rand(1, N, 2, generator=torch.Generator().manual_seed(0))
    topology = Curriculum(FADE, least=0, keep=keep)
    before = left(topology, 1.0, positions)
    for strength in (0.8, 0.6, 0.4, 0.2, 0.0):
        now = left(topology, strength, positions)
        assert all(set(n) <= set(b) for n, b in zip(now, before, strict=True))
        before = now
    assert before == [[]] * N


def test_the_nearest_are_left_where_space_counts() -> None:
    line = torch.arange(N).float().view(1, N, 1)
    assert left(Curriculum(FADE, least=1, keep="nearest"), 0.0, line)[0] == [1]
    assert left(Curriculum(FADE, least=2, keep="nearest"), 0.0, line)[3] == [2, 4]


def test_a_ring_loses_those_that_are_farthest_along_it() -> None:
    topology = Curriculum(FADE, least=2, of={"kind": "ring", "k": 4})
    assert left(topology, 0.0) == [sorted([(i - 1) % N, (i + 1) % N]) for i in range(N)]


@pytest.mark.parametrize("keep", ["first", "drawn"])
def test_the_least_are_left_of_those_who_are_there(keep: str) -> None:
    """Seat 0 hears all others, the rest hear one; and where seats are empty others are heard."""
    adjacency = torch.zeros(N, N, dtype=torch.bool)
    adjacency[1:, 0], adjacency[0, 1:] = True, True
    for seed in range(5):
        star = Curriculum(FADE, of={"kind": "custom", "adjacency": adjacency}, keep=keep, seed=seed)
        assert [len(heard) for heard in left(star, 0.0)] == [1] * N
        assert [len(heard) for heard in left(star, 0.5)] == [3] + [1] * (N - 1)
        full = Curriculum(FADE, least=2, keep=keep, seed=seed)
        present = torch.tensor([[False, False, False, True, True, True]])
        assert full.thinned(full.connect(present), 0.0).mask[0].sum(1).tolist() == [2] * N


def test_an_order_is_drawn_once_from_its_seed() -> None:
    first, again, other = (Curriculum(FADE, least=2, keep="drawn", seed=seed) for seed in (1, 1, 2))
    assert left(first, 0.0) == left(again, 0.0)
    assert left(first, 0.0) != left(other, 0.0)


def said(session: Session, step: int) -> int:
    """Links of a step at that point of training, all present and hearing."""
    session.observe(Clock(step))
    everybody = torch.ones(1, N, dtype=torch.bool)
    session.send(torch.zeros(1, N, 1, dtype=torch.long), everybody, everybody.any(1))
    return int(session.deliver(everybody, everybody).mask.sum())


def test_a_session_follows_the_clock_and_says_how_far_it_is() -> None:
    session = Session(Channel(Symbols(4, 1), Curriculum(FADE, least=1), N), 1, 0)
    assert [said(session, step) for step in (0, 100, 150, 200, 999)] == [30, 30, 18, 6, 6]
    assert session.measures() == {"topology_strength": 0.0}


def test_what_a_gated_schedule_remembers_goes_from_session_to_session_and_is_not_shared() -> None:
    gated = {"kind": "gated", "measure": "reward", "begin": 0.0, "end": 1.0, "smoothing": 0.0}
    channel = Channel(Symbols(4, 1), Curriculum(gated, least=0), N)
    first, second = Session(channel, 1, 0), Session(channel, 1, 0)
    first.observe(Clock(1, {"reward": 0.6}))
    second.observe(Clock(1))
    assert (first.measures()["topology_strength"], second.measures()["topology_strength"]) == (pytest.approx(0.4), 1.0)
    second.set_fades(first.fades())
    second.observe(Clock(2))
    assert second.measures()["topology_strength"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"least": 9}, "least is 9, and an agent has at most 5 links"),
        ({"least": -1}, "least is -1, and must be at least 0"),
        ({"keep": "near"}, "keep is 'near'; did you mean 'nearest'"),
        ({"of": {"kind": "routed"}}, "of is Routed, and must have inboxes"),
        ({"of": {"kind": "ring"}, "keep": "nearest"}, "keep is 'nearest', and `of` must be full"),
        ({"schedule": {"kind": "lineal", "begin": 0, "end": 1}}, "did you mean 'linear'"),
        ({"schedule": {"kind": "load_linear", "begin": 0, "end": 1}}, "has the schedule 'load_linear', .*use 'linear'"),
    ],
)
def test_what_cannot_be_is_told(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_topology({"kind": "curriculum", "schedule": FADE, **arguments}).inbox_size(N)


def test_where_it_needs_positions_it_says_so() -> None:
    assert Curriculum(FADE, keep="nearest").needs_positions
    assert Curriculum(FADE, of=KNearest(2)).needs_positions
    assert not Curriculum(FADE, of=Ring(2)).needs_positions
