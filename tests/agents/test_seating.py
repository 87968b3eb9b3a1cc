"""Seatings: balance, meeting others, and the way between world order and member-major order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popcomm.agents.seating import Seating, block_of_worlds, check_balance, draw, redraw
from popcomm.errors import UserError


@given(st.integers(1, 12), st.integers(1, 7), st.integers(1, 6), st.integers(0, 99))
def test_every_member_has_equally_many_seats(members: int, seats: int, blocks: int, seed: int) -> None:
    worlds = block_of_worlds(members, seats) * blocks
    drawn = draw(np.random.default_rng(seed), worlds, seats, members)
    assert np.bincount(drawn.ravel(), minlength=members).tolist() == [worlds * seats // members] * members


@given(st.integers(1, 12), st.integers(1, 7), st.integers(2, 5), st.integers(0, 99))
def test_consecutive_blocks_of_worlds_are_balanced_by_themselves(
    members: int, seats: int, blocks: int, seed: int
) -> None:
    block = block_of_worlds(members, seats)
    drawn = draw(np.random.default_rng(seed), block * blocks, seats, members)
    counts = [np.bincount(drawn[i : i + block].ravel(), minlength=members) for i in range(0, block * blocks, block)]
    assert np.ptp(counts) == 0


def test_a_world_has_distinct_members_when_the_population_is_a_multiple_of_its_seats() -> None:
    drawn = draw(np.random.default_rng(0), 50, 4, 20)
    assert all(len(set(row)) == 4 for row in drawn)


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 99))
def test_redrawing_some_worlds_leaves_the_others_and_nearly_keeps_the_balance(
    members: int, seats: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    worlds = block_of_worlds(members, seats) * 3
    before = draw(rng, worlds, seats, members)
    starts = rng.random(worlds) < 0.4
    after = redraw(rng, before, members, starts)
    assert (after[~starts] == before[~starts]).all()
    assert np.bincount(after.ravel(), minlength=members).max() <= worlds * seats // members + 1


def test_members_meet_others_even_when_worlds_start_one_by_one() -> None:
    rng = np.random.default_rng(1)
    seats = draw(rng, 10, 2, 20)
    met: set[tuple[int, int]] = set()
    for i in range(400):
        seats = redraw(rng, seats, 20, np.arange(10) == i % 10)
        met |= {tuple(sorted(row)) for row in seats.tolist()}
    assert len([pair for pair in met if pair[0] != pair[1]]) > 150  # of 190 pairs


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_there_and_back_is_the_identity_for_any_seating(flat: list[int]) -> None:
    seating = Seating(torch.tensor(flat).view(3, 2), 5)
    values = torch.arange(12.0).view(3, 2, 2)
    rows = seating.to_members(values)
    assert torch.equal(seating.to_worlds(rows), values)
    mask = seating.row_mask(torch.ones(3, 2, dtype=torch.bool))
    assert mask.sum(1).tolist() == torch.bincount(torch.tensor(flat), minlength=5).tolist()


def test_rows_belong_to_their_member() -> None:
    seats = torch.tensor([[1, 0], [0, 1]])
    assert Seating(seats, 2).to_members(seats).tolist() == [[0, 0], [1, 1]]
    assert Seating(seats, 2).index.tolist() == [[1, 2], [0, 3]]


def test_a_world_count_that_cannot_seat_the_members_names_the_nearest_that_can() -> None:
    with pytest.raises(UserError, match=r"num_worlds is 7: .* the nearest that can: 5 or 10"):
        check_balance("num_worlds", 7, 2, 10)
