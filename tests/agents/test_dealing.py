"""Dealing members to seats: quotas, layouts, trades and exchanges, on tables small enough to solve on paper."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from popcomm.agents.dealing import balanced_rows, deal, exchange, quota


def times(rows: np.ndarray, members: int) -> np.ndarray:
    """[R, P]: how often each member is in each row."""
    return (rows[:, :, None] == np.arange(members)).sum(1)


def test_of_three_members_in_rows_of_two_each_is_absent_once_in_every_order() -> None:
    """Three rows hold every member twice: the absent are a permutation of the three, each as likely."""
    tables = balanced_rows(np.random.default_rng(0), 6000, 3, 2, 3)
    absent = Counter(map(tuple, (3 - tables.sum(2)).tolist()))
    assert len(absent) == 6
    assert max(abs(n - 1000) for n in absent.values()) < 4 * (6000 / 6 * 5 / 6) ** 0.5


def test_two_members_in_rows_of_five_are_there_twice_and_thrice_in_turn() -> None:
    tables = balanced_rows(np.random.default_rng(0), 2, 4, 5, 2)
    for table in tables:
        found = times(table, 2)
        assert set(found.ravel()) == {2, 3}
        assert found[:2].sum(0).tolist() == found[2:].sum(0).tolist() == [5, 5]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=9), st.integers(1, 9), st.integers(0, 99))
def test_dealt_rows_hold_all_copies_spread_evenly(copies: list[int], rows: int, seed: int) -> None:
    given_out = np.array(copies)
    given_out[0] += -given_out.sum() % rows
    found = times(deal(np.random.default_rng(seed), given_out, rows), len(given_out))
    assert found.sum(0).tolist() == given_out.tolist()
    assert (found >= given_out // rows).all()
    assert (found <= -(-given_out // rows)).all()


def test_all_ways_to_deal_are_equally_likely() -> None:
    """Three rows of two, members 0 and 1 twice, 2 and 3 once: 0 is absent from one row and 1 from another (6 ways), and
    2 and 3 take these places (2 ways); or both are absent from the same (3 ways)."""
    rng, counts = np.random.default_rng(1), Counter()
    for _ in range(3000):
        counts[tuple(tuple(sorted(row)) for row in deal(rng, np.array([2, 2, 1, 1]), 3).tolist())] += 1
    assert len(counts) == 15
    assert max(abs(n - 200) for n in counts.values()) < 4.5 * 200**0.5


def test_trades_forget_the_layout() -> None:
    """Ten members, ten copies each, on fifty rows of two: a pair shares 50 * 2 / 90 rows, give or take one; in the
    layout by runs pairs share ten rows or none."""
    rng = np.random.default_rng(2)
    variances = []
    for _ in range(50):
        there = times(deal(rng, np.full(10, 10), 50), 10)
        variances.append(np.var((there.T @ there)[np.triu_indices(10, 1)]))
    assert 0.6 < np.mean(variances) < 1.1


def test_who_holds_too_few_gets_seats_first_and_who_holds_too_many_gets_none() -> None:
    held, none = np.array([0, 3, 5, 7]), np.zeros(4, np.int64)
    for seed in range(20):
        got = quota(np.random.default_rng(seed), held, none, np.full(4, 9), 6, (4, 6))
        assert got[0] >= 4
        assert got[1] >= 1
        assert got[3] == 0
        assert (held + got)[:3].max() <= 6


def test_members_get_seats_as_likely_as_they_have_room() -> None:
    """One seat, room for 1, 2 and 3 more: 1/6, 2/6 and 3/6."""
    rng, held = np.random.default_rng(3), np.array([5, 4, 3])
    got = sum(quota(rng, held, np.zeros(3, np.int64), np.full(3, 6), 1, (2, 6)) for _ in range(6000))
    expected = np.array([1000, 2000, 3000])
    assert (np.abs(got - expected) < 4 * (expected * (1 - expected / 6000)) ** 0.5).all()


def test_a_quota_gives_the_least_before_all_else_and_never_more_than_the_most() -> None:
    """Member 0 holds too many, and must get one all the same; the others may get one each."""
    held, least, most = np.array([9, 1, 1]), np.array([1, 0, 0]), np.array([2, 1, 1])
    got = [quota(np.random.default_rng(0), held, least, most, count, (1, 3)).tolist() for count in (0, 1, 3, 4)]
    assert got == [[0, 0, 0], [1, 0, 0], [1, 1, 1], [2, 1, 1]]


@given(st.integers(1, 6), st.integers(1, 4), st.floats(0, 1), st.integers(0, 99))
def test_an_exchange_keeps_what_there_is_and_brings_nobody_twice_into_a_row(
    rows: int, width: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = rng.random((rows, 5)).argsort(1)[:, :width]
    chosen = rng.random(before.shape) < share
    after = exchange(rng, before, chosen)
    assert (after[~chosen] == before[~chosen]).all()
    assert sorted(after.ravel()) == sorted(before.ravel())
    assert times(after, 5).max() == 1


def test_chosen_places_end_up_with_what_any_of_them_held() -> None:
    """Three rows of one place, two of them chosen, then all: 1/2 and 1/3 keep what they had."""
    rng, rows = np.random.default_rng(4), np.arange(3)[:, None]
    for chosen in ([True, True, False], [True, True, True]):
        kept = sum(exchange(rng, rows, np.array(chosen)[:, None])[0, 0] == 0 for _ in range(2000))
        p = 1 / sum(chosen)
        assert abs(kept - 2000 * p) < 4 * (2000 * p * (1 - p)) ** 0.5


def test_an_exchange_may_part_a_member_that_sits_twice() -> None:
    after = exchange(np.random.default_rng(0), np.array([[0, 0], [1, 1]]), np.ones((2, 2), bool))
    assert [sorted(row) for row in after.tolist()] in ([[0, 1], [0, 1]], [[0, 0], [1, 1]])
