"""Meetings: a member's mean over those whom it met."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from popcomm.evolution import Meetings


def test_luck_of_seating_is_not_fitness() -> None:
    """Each member earns its own worth and its partner's. Member 0 has the good partner nine times of ten."""
    worth = np.array([1.0, 2.0, 10.0, 0.0])
    pairs = np.array([[0, 2]] * 9 + [[0, 3]] + [[1, 2]] + [[1, 3]] * 9)
    returns = worth[pairs].sum(1, keepdims=True) + np.zeros((1, 2))
    met = Meetings(4)
    met.add(pairs, returns)
    plain = [returns[(pairs == m).any(1)].mean() for m in (0, 1)]
    assert plain[0] > plain[1]  # by luck
    assert met.mean()[0] == 1.0 + 5.0
    assert met.mean()[1] == 2.0 + 5.0


def test_where_all_sit_in_every_world_it_is_the_plain_mean() -> None:
    rng = np.random.default_rng(0)
    seats = np.stack([rng.permutation(5) for _ in range(40)])
    returns = rng.random((40, 5))
    met = Meetings(5)
    met.add(seats, returns)
    assert np.allclose(met.mean(), [returns[seats == m].mean() for m in range(5)])


def test_alone_it_is_the_plain_mean() -> None:
    met = Meetings(2)
    met.add(np.array([[0], [0], [1]]), np.array([[1.0], [3.0], [7.0]]))
    assert met.mean().tolist() == [2.0, 7.0]


def test_of_whom_nobody_met_nothing_is_known() -> None:
    met = Meetings(3)
    met.add(np.array([[0, 1]]), np.array([[1.0, 2.0]]))
    assert np.isnan(met.mean()).tolist() == [False, False, True]


def test_what_does_not_count_is_left_out() -> None:
    met = Meetings(2)
    met.add(np.array([[0, 1], [0, 1]]), np.array([[1.0, 2.0], [np.nan, 4.0]]), np.array([[True, True], [False, True]]))
    assert met.mean().tolist() == [1.0, 3.0]


@given(
    arrays(int, (6, 3), elements=st.integers(0, 4)),
    arrays(float, (6, 3), elements=st.floats(-9, 9)),
    st.integers(0, 6),
)
def test_it_adds_over_runners_and_fragments(members: np.ndarray, values: np.ndarray, cut: int) -> None:
    whole, first, second = (Meetings(5) for _ in range(3))
    whole.add(members, values)
    first.add(members[:cut], values[:cut])
    second.add(members[cut:], values[cut:])
    first.merge(second.get_state())
    assert np.allclose(whole.mean(), first.mean(), equal_nan=True)


def test_of_the_dead_nothing_is_left_nor_of_what_others_came_to_beside_them() -> None:
    met = Meetings(3)
    met.add(np.array([[0, 1], [0, 2]]), np.array([[1.0, 1.0], [5.0, 5.0]]))
    met.forget(np.array([False, True, False]))
    assert np.array_equal(met.mean(), [5.0, np.nan, 5.0], equal_nan=True)


def test_in_large_worlds_each_meets_a_bounded_number_and_the_mean_is_the_same() -> None:
    rng = np.random.default_rng(0)
    seats = np.stack([rng.permutation(300) for _ in range(2)])
    returns = rng.random((2, 300))
    met = Meetings(300)
    met.add(seats, returns)
    assert len(met.get_state()["pairs"]) <= 2 * 300 * 64
    assert np.allclose(met.mean(), [returns[seats == m].mean() for m in range(300)], atol=0.05)
