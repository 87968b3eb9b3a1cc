"""Meetings: a member's mean over those whom it met."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from popcomm.errors import UserError
from popcomm.evolution import Meetings
from popcomm.evolution.meetings import neighbours


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


def test_members_of_other_species_are_met_by_their_numbers() -> None:
    """Two members with the numbers 3 and 4, who meet 0 and 1: one of these is worth 10."""
    met = Meetings(2, first=3, everybody=5)
    others = np.array([[[0]]] * 3 + [[[1]]] + [[[0]]] + [[[1]]] * 3)
    members = np.array([[0]] * 4 + [[1]] * 4)
    met.add(members, np.where(others[:, :, 0] == 0, 10.0, 0.0) + members, met=others)
    assert met.mean().tolist() == [5.0, 6.0]


def test_seats_whose_members_do_not_change_are_nobody_to_meet() -> None:
    assert neighbours(np.array([0]), np.array([0, 3, 4])).tolist() == [[3, 4]]
    assert neighbours(np.array([1, 2]), np.array([0, 3])).tolist() == [[3, 0], [3, 0]]
    assert neighbours(np.array([0]), np.array([0])).tolist() == [[0]]  # alone
    assert neighbours(np.array([0, 1]), np.array([], int)).tolist() == [[0], [1]]


def test_sums_of_before_other_species_counted_are_taken_for_those_of_its_own() -> None:
    old = Meetings(3)
    old.add(np.array([[0, 1], [0, 2]]), np.array([[1.0, 2.0], [5.0, 6.0]]))
    state = {key: value for key, value in old.get_state().items() if key != "everybody"}
    met = Meetings(3, first=4, everybody=9)
    met.merge(state)
    assert met.mean().tolist() == old.mean().tolist() == [3.0, 2.0, 6.0]
    met.add(np.array([[0, 1]]), np.array([[3.0, 2.0]]))  # the same pair again
    assert met.mean().tolist() == [3.5, 2.0, 6.0]


def test_sums_of_another_number_of_members_are_refused() -> None:
    with pytest.raises(UserError, match="met 9 members of all species, and here there are 3"):
        Meetings(3).merge(Meetings(3, everybody=9).get_state())


def test_in_large_worlds_each_meets_a_bounded_number_and_the_mean_is_the_same() -> None:
    rng = np.random.default_rng(0)
    seats = np.stack([rng.permutation(300) for _ in range(2)])
    returns = rng.random((2, 300))
    met = Meetings(300)
    met.add(seats, returns)
    assert len(met.get_state()["pairs"]) <= 2 * 300 * 64
    assert np.allclose(met.mean(), [returns[seats == m].mean() for m in range(300)], atol=0.05)


def test_empty_seats_are_nobody_and_who_met_nobody_was_alone() -> None:
    met = Meetings(2, first=3, everybody=6)
    beside = np.array([[[5, -1, 0]], [[-1, -1, 0]], [[-1, -1, -1]]])
    met.add(np.array([[0], [0], [1]]), np.array([[4.0], [7.0], [1.0]]), met=beside)
    # Beside 5: 4. Beside 0: half a meeting at 4, a whole one at 7.
    assert met.mean().tolist() == [(4.0 + 6.0) / 2, 1.0]
