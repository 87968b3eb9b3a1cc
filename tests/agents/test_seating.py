"""Seatings: balance, meeting others, and the way between world order and member-major order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popcomm.agents.seating import Seating, SeatingRule, block_of_worlds, check_balance, draw, redraw
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


def times(seats: np.ndarray, members: int) -> np.ndarray:
    """[B, P]: how often each member sits in each world."""
    return (seats[:, :, None] == np.arange(members)).sum(1)


def as_even_as_may_be(seats: np.ndarray, members: int) -> bool:
    """Whether each member sits in each world floor or ceil of N / P times: once at most where P >= N."""
    found = times(seats, members)
    return bool((found >= seats.shape[1] // members).all() and (found <= -(-seats.shape[1] // members)).all())


@given(st.integers(1, 12), st.integers(1, 14), st.integers(1, 4), st.integers(0, 99))
def test_no_member_sits_twice_in_a_world_where_there_are_enough(
    members: int, seats: int, blocks: int, seed: int
) -> None:
    """Of three members and two seats every other permutation is cut by a world; of two and five, each sits twice."""
    drawn = draw(np.random.default_rng(seed), block_of_worlds(members, seats) * blocks, seats, members)
    assert as_even_as_may_be(drawn, members)


@given(st.integers(2, 12), st.integers(1, 14), st.sampled_from([0.05, 0.4, 0.9]), st.integers(0, 99))
def test_nor_after_episodes_of_unequal_length_and_all_hold_their_share_but_one(
    members: int, seats: int, starting: float, seed: int
) -> None:
    rng, worlds = np.random.default_rng(seed), block_of_worlds(members, seats) * 3
    now = draw(rng, worlds, seats, members)
    for _ in range(8):
        before, starts = now, rng.random(worlds) < starting
        now = redraw(rng, before, members, starts)
        assert (now[~starts] == before[~starts]).all()
        assert as_even_as_may_be(now, members)
        assert np.abs(np.bincount(now.ravel(), minlength=members) - worlds * seats // members).max() <= 1


def test_ten_members_on_ten_seats_all_sit_in_every_world_however_worlds_start() -> None:
    rng = np.random.default_rng(3)
    now = first = draw(rng, 12, 10, 10)
    for i in range(60):
        now = redraw(rng, now, 10, np.arange(12) % 7 == i % 7)
        assert (times(now, 10) == 1).all()
    assert (now != first).any(1).all()


def test_a_single_world_has_distinct_members_too() -> None:
    assert sorted(draw(np.random.default_rng(0), 1, 3, 3)[0]) == [0, 1, 2]
    assert len(set(draw(np.random.default_rng(0), 1, 5, 7)[0])) == 5


@pytest.mark.parametrize(("members", "seats"), [(3, 2), (5, 3), (7, 4), (6, 2)])
def test_every_two_members_meet_as_often_as_any_other_two(members: int, seats: int) -> None:
    """Drawn at once, and a third of the worlds at a time: N (N - 1) / 2 of P (P - 1) / 2 pairs in each world. Worlds of
    a block depend on one another, so that the limit is 4 standard errors of as many draws as there are blocks."""
    rng, block = np.random.default_rng(4), block_of_worlds(members, seats)
    at_once = draw(rng, block * 1500, seats, members)
    now, later = draw(rng, block * 2, seats, members), []
    for i in range(3000):
        now = redraw(rng, now, members, np.arange(block * 2) % 3 == i % 3)
        later.append(now[i % 3 :: 3])
    expected = seats * (seats - 1) / members / (members - 1)
    for found in (at_once, np.concatenate(later)):
        there = times(found, members)
        together = (there.T @ there / len(found))[np.triu_indices(members, 1)]
        assert np.abs(together - expected).max() < 4 * (expected * (1 - expected) / 1500) ** 0.5


def test_a_member_is_as_likely_on_one_seat_as_on_another() -> None:
    """Seats of 6,000 worlds, half of them seated later than the others: 3,600 times each of five members."""
    rng = np.random.default_rng(5)
    seats = draw(rng, 6000, 3, 5)
    seats = redraw(rng, seats, 5, np.arange(6000) % 2 == 0)
    for part in (seats[::2], seats[1::2]):
        table = np.stack([np.bincount(column, minlength=5) for column in part.T])
        assert np.abs(table - 600).max() < 4 * (3000 * 0.2 * 0.8) ** 0.5


def test_who_holds_fewest_seats_comes_first() -> None:
    """Members 0 and 1 hold two seats less than their share of three; world 0 starts, and must seat both."""
    seats = np.array([[2, 3], [0, 2], [1, 2], [2, 3], [3, 2], [3, 2]])
    for seed in range(20):
        after = redraw(np.random.default_rng(seed), seats, 4, np.arange(6) == 0)
        assert sorted(after[0]) == [0, 1]


def test_a_world_takes_distinct_members_even_where_all_but_one_hold_too_many() -> None:
    seats = np.array([[0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]])
    for seed in range(20):
        after = redraw(np.random.default_rng(seed), seats, 3, np.arange(6) == 0)
        assert 2 in after[0]
        assert len(set(after[0])) == 2


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


# ---- communities ----


def communities(count: int, mixing: float = 0.0) -> SeatingRule:
    return SeatingRule("communities", count, mixing)


def strangers(seats: np.ndarray, members: int, groups: int) -> np.ndarray:
    """[B, N] bool: who sits in a world of another community."""
    return seats * groups // members != (np.arange(len(seats)) % groups)[:, None]


def test_two_communities_of_two_fill_two_worlds_of_two_seats_in_the_only_way() -> None:
    seats = draw(np.random.default_rng(0), 2, 2, 4, communities(2))
    assert [sorted(row) for row in seats.tolist()] == [[0, 1], [2, 3]]


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_who_does_not_mix_never_sits_elsewhere_and_blocks_are_balanced(
    groups: int, size: int, seats: int, blocks: int, seed: int
) -> None:
    members, block = groups * size, block_of_worlds(groups * size, seats, groups)
    drawn = draw(np.random.default_rng(seed), block * blocks, seats, members, communities(groups))
    assert not strangers(drawn, members, groups).any()
    counts = [np.bincount(drawn[i : i + block].ravel(), minlength=members) for i in range(0, block * blocks, block)]
    assert np.ptp(counts) == 0


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_exchange_keeps_the_balance_exactly(groups: int, size: int, seats: int, mixing: float, seed: int) -> None:
    members, worlds = groups * size, 3 * block_of_worlds(groups * size, seats, groups)
    drawn = draw(np.random.default_rng(seed), worlds, seats, members, communities(groups, mixing))
    assert np.bincount(drawn.ravel(), minlength=members).tolist() == [worlds * seats // members] * members


@given(
    st.integers(2, 3),
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.sampled_from([0.05, 0.4, 1.0]),
    st.integers(0, 99),
)
def test_mixing_never_seats_a_member_twice_in_a_world(
    groups: int, size: int, seats: int, mixing: float, starting: float, seed: int
) -> None:
    """Where its community has members enough; at mixing 1, where the whole population has."""
    rng, members, rule = np.random.default_rng(seed), groups * size, communities(groups, mixing)
    worlds = 2 * block_of_worlds(members, seats, groups)
    now = draw(rng, worlds, seats, members, rule)
    for _ in range(6):
        if size >= seats or mixing == 1:
            assert as_even_as_may_be(now, members)
        elif mixing == 0:
            own = [now[g::groups] - g * size for g in range(groups)]
            assert all(as_even_as_may_be(worlds, size) for worlds in own)
        now = redraw(rng, now, members, rng.random(worlds) < starting, rule)


def test_a_chosen_seat_holds_anyone_who_is_not_there_already() -> None:
    """Of two communities of three in worlds of two seats, five members may sit beside a given one: where one seat of
    the two is chosen, which is so in 2 q (1 - q) of the worlds, it holds one of three strangers out of five."""
    q, worlds = 0.02, 60_000
    rule = communities(2, q)
    seats = draw(np.random.default_rng(6), worlds, 2, 6, rule)
    share = strangers(seats, 6, 2).any(1).mean()
    expected = 2 * q * 3 / 5
    # Both are chosen in q^2 of the worlds.
    assert abs(share - expected) < 4 * (expected / worlds) ** 0.5 + q * q


@pytest.mark.parametrize("mixing", [0.3, 0.7])
def test_strangers_meet_as_often_as_other_strangers_when_worlds_start_at_different_times(mixing: float) -> None:
    rng, rule, found = np.random.default_rng(7), communities(2, mixing), []
    now = draw(rng, 12, 2, 6, rule)
    for i in range(6000):
        now = redraw(rng, now, 6, np.arange(12) % 5 == i % 5, rule)
        found.append(now[i % 5 :: 5])
    there = times(np.concatenate(found), 6)
    together = there.T @ there / len(there)
    within = np.concatenate([together[:3, :3][np.triu_indices(3, 1)], together[3:, 3:][np.triu_indices(3, 1)]])
    between = together[:3, 3:].ravel()
    for rates in (within, between):
        assert np.ptp(rates) < 8 * (rates.mean() / 6000) ** 0.5
    assert between.mean() < within.mean()


@pytest.mark.parametrize(("groups", "mixing"), [(2, 0.05), (2, 0.5), (3, 0.2), (3, 1.0)])
def test_a_chosen_seat_holds_any_member_as_likely_as_another(groups: int, mixing: float) -> None:
    """So a share mixing (1 - 1 / G) of the seats holds strangers; all of them, from all communities alike, at 1."""
    seats = draw(np.random.default_rng(5), 12_000, 1, 6, communities(groups, mixing))
    expected = mixing * (1 - 1 / groups)
    error = (expected * (1 - expected) / 12_000) ** 0.5
    assert abs(strangers(seats, 6, groups).mean() - expected) < 4 * error
    if mixing == 1:
        table = np.bincount(seats[::groups, 0], minlength=6)
        assert np.abs(table - table.mean()).max() < 4 * table.mean() ** 0.5


def test_members_of_a_community_meet_all_others_of_it() -> None:
    seats = draw(np.random.default_rng(0), 600, 2, 8, communities(2))
    met = {tuple(sorted(row)) for row in seats.tolist()}
    assert met == {(a, b) for a in range(8) for b in range(a + 1, 8) if a // 4 == b // 4}


@given(st.integers(2, 3), st.integers(1, 4), st.integers(1, 4), st.floats(0, 1), st.integers(0, 99))
def test_redrawing_some_worlds_of_communities_keeps_the_others_and_nearly_the_balance(
    groups: int, size: int, seats: int, mixing: float, seed: int
) -> None:
    rng, members = np.random.default_rng(seed), groups * size
    worlds = 3 * block_of_worlds(members, seats, groups)
    now = draw(rng, worlds, seats, members, communities(groups, mixing))
    for _ in range(4):
        before, starts = now, rng.random(worlds) < 0.4
        now = redraw(rng, before, members, starts, communities(groups, mixing))
        assert (now[~starts] == before[~starts]).all()
        assert np.bincount(now.ravel(), minlength=members).max() <= worlds * seats // members + 1
        if mixing == 0:
            assert not strangers(now, members, groups).any()


def test_communities_that_do_not_mix_stay_apart_when_worlds_start_one_by_one_and_still_meet_inside() -> None:
    rng, rule = np.random.default_rng(1), communities(2)
    seats, met = draw(rng, 8, 2, 8, rule), set()
    for i in range(400):
        seats = redraw(rng, seats, 8, np.arange(8) == i % 8, rule)
        assert not strangers(seats, 8, 2).any()
        met |= {tuple(sorted(row)) for row in seats.tolist()}
    assert {pair for pair in met if pair[0] != pair[1]} == {
        (a, b) for a in range(8) for b in range(a + 1, 8) if a // 4 == b // 4
    }


def test_communities_mix_when_worlds_start_one_by_one() -> None:
    """A single world has nobody to exchange with: a mixed seat takes whoever has room, one place in each of the others
    and that which its own community just left: strangers with probability 3 / 7 instead of a half."""
    rng, rule, count = np.random.default_rng(2), communities(2, 0.3), []
    seats = draw(rng, 24, 1, 6, rule)
    for i in range(4800):
        seats = redraw(rng, seats, 6, np.arange(24) == i % 24, rule)
        count.append(strangers(seats, 6, 2)[i % 24, 0])
    expected = 0.3 * 3 / 7
    assert abs(np.mean(count) - expected) < 4 * (expected * (1 - expected) / 4800) ** 0.5


def test_a_community_without_a_member_to_spare_takes_a_stranger() -> None:
    """Member 0 holds three of four seats, its share and one more, so that world 0 must do with member 1."""
    seats = np.array([[1], [0], [0], [0]])
    after = redraw(np.random.default_rng(0), seats, 2, np.array([True, False, False, False]), communities(2))
    assert after.ravel().tolist() == [1, 0, 0, 0]


def test_the_generator_decides_the_seats() -> None:
    def history(seed: int) -> np.ndarray:
        rng, rule = np.random.default_rng(seed), communities(2, 0.3)
        seats = [draw(rng, 12, 2, 6, rule)]
        for i in range(5):
            seats.append(redraw(rng, seats[-1], 6, np.arange(12) % 5 == i, rule))
        return np.stack(seats)

    assert (history(1) == history(1)).all()
    assert (history(1) != history(2)).any()


def test_worlds_must_seat_every_community_evenly() -> None:
    """Communities of three in worlds of two seats: three worlds each; without communities three worlds for all six."""
    assert (block_of_worlds(6, 2), block_of_worlds(6, 2, 2)) == (3, 6)
    check_balance("num_worlds", 9, 2, 6)
    check_balance("num_worlds", 12, 2, 6, 2)
    with pytest.raises(UserError, match=r"is 9: .* 6 members evenly in 2 communities; the nearest that can: 6 or 12"):
        check_balance("num_worlds", 9, 2, 6, 2)
    with pytest.raises(UserError, match=r"is 2: .* the nearest that can: 6$"):
        check_balance("num_worlds", 2, 2, 6, 2)
