"""Generations: ids that are given once, parents, founders, and fitness that is remembered."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.evolution import NOBODY, Generation, check_sources, lived, succeeded


def after(*sources: int, mates: list[int] | None = None, anew: bool = False) -> Generation:
    second = None if mates is None else np.array(mates)
    return succeeded(Generation.first(len(sources)), np.array(sources), second, anew)


def test_founders_are_individuals_of_their_own_without_parents() -> None:
    first = Generation.first(3)
    assert first.ids.tolist() == first.founders.tolist() == [0, 1, 2]
    assert first.parents.tolist() == [NOBODY] * 3
    assert not first.known.any()
    assert first.ages.tolist() == [0, 0, 0]


def test_who_lives_on_keeps_its_id_and_children_get_new_ones() -> None:
    second = after(0, 0, 2, 2)
    assert second.ids.tolist() == [0, 4, 2, 5]
    assert second.parents.tolist() == [NOBODY, 0, NOBODY, 2]
    assert second.births.tolist() == [0, 1, 0, 1]
    assert second.ages.tolist() == [1, 0, 1, 0]
    assert second.founders.tolist() == [0, 0, 2, 2]


def test_one_made_anew_has_no_parent_and_founds_a_line() -> None:
    second = after(0, NOBODY)
    assert (second.ids[1], second.parents[1], second.founders[1]) == (2, NOBODY, 2)


def test_a_taught_child_has_a_parent_and_founds_a_line() -> None:
    second = after(0, 0, anew=True)
    assert (second.ids[1], second.parents[1], second.founders[1]) == (2, 0, 2)


def test_mates_are_told_by_their_ids_of_then() -> None:
    second = after(0, 0, 2, mates=[NOBODY, 2, NOBODY])
    third = succeeded(second, np.array([1, 1, 2]), np.array([2, NOBODY, NOBODY]))
    assert second.mates.tolist() == [NOBODY, 2, NOBODY]
    assert (third.parents[0], third.mates[0]) == (3, 2)


def test_a_newborn_has_no_fitness_yet_and_others_keep_theirs() -> None:
    first = lived(Generation.first(2), np.array([1.0, 2.0]))
    assert np.array_equal(succeeded(first, np.array([1, 1])).fitness, [np.nan, 2.0], equal_nan=True)


def test_how_far_a_member_is_above_all_is_smoothed_and_not_what_all_learn_meanwhile() -> None:
    once = lived(Generation.first(3), np.array([4.0, 0.0, np.nan]), 0.75)
    twice = lived(once, np.array([102.0, 98.0, np.nan]), 0.75)
    thrice = lived(twice, np.array([np.nan, 10.0, 20.0]), 0.75)
    assert np.array_equal(once.fitness, [4.0, 0.0, np.nan], equal_nan=True)
    assert np.array_equal(twice.fitness, [102.0, 98.0, np.nan], equal_nan=True)  # 2 above and 2 below, as before
    # The first was not measured and stays 4 above the second, who alone lived before and now; the third is new.
    assert thrice.fitness.tolist() == [14.0, 10.0, 20.0]


def test_smoothing_is_among_those_who_lived_before_and_now() -> None:
    once = lived(Generation.first(4), np.array([4.0, 0.0, np.nan, 8.0]), 0.75)
    twice = lived(once, np.array([10.0, 20.0, 40.0, np.nan]), 0.75)
    # The first two were 2 above and 2 below their mean, and are 5 below and 5 above it now, which is 15.
    assert twice.fitness.tolist() == [15 + 0.75 * 2 - 0.25 * 5, 15 - 0.75 * 2 + 0.25 * 5, 40.0, 15 + 6.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_equals_stay_equals_after_a_selection(smoothing: float) -> None:
    """Three copies of the best do as it does, and none is fitter for having lived before."""
    parents = lived(Generation.first(4), np.array([0.0, 0.0, 0.0, 4.0]), smoothing)
    generation = succeeded(parents, np.full(4, 3))
    for worth in (4.0, 9.0, 9.0):
        generation = lived(generation, np.full(4, worth), smoothing)
        assert generation.fitness.tolist() == [worth] * 4


def test_where_nobody_was_known_and_is_measured_who_is_not_measured_keeps_its_fitness() -> None:
    once = lived(Generation.first(3), np.array([4.0, np.nan, np.nan]), 0.5)
    assert lived(once, np.array([np.nan, 1.0, 3.0]), 0.5).fitness.tolist() == [4.0, 1.0, 3.0]


@pytest.mark.parametrize("worth", [np.inf, -np.inf, np.nan])
def test_a_fitness_that_is_no_finite_number_is_nobodys_but_its_own(worth: float) -> None:
    once = lived(Generation.first(3), np.array([1.0, 3.0, worth]), 0.5)
    assert np.array_equal(once.fitness, [1.0, 3.0, np.nan], equal_nan=True)
    twice = lived(once, np.array([4.0, worth, 9.0]), 0.5)
    assert twice.fitness.tolist() == [4.0, 6.0, 9.0]  # who was not measured stays 2 above the first


def test_a_state_of_before_with_a_level_is_read() -> None:
    state = Generation.first(2).get_state() | {"level": 3.0}
    assert Generation.of_state(state).ids.tolist() == [0, 1]


def test_where_nothing_was_measured_everything_stays() -> None:
    once = lived(Generation.first(2), np.array([4.0, 0.0]))
    assert lived(once, np.array([np.nan, np.nan]), 0.5) is once


@given(
    st.integers(2, 6).flatmap(lambda p: st.lists(st.lists(st.integers(-1, p - 1), min_size=p, max_size=p), max_size=6))
)
def test_ids_are_given_once_in_all_generations(history: list[list[int]]) -> None:
    if not history:
        return
    generation = Generation.first(len(history[0]))
    birth_of: dict[int, int] = {}
    for sources in history:
        generation = succeeded(generation, np.array(sources))
        assert len(set(generation.ids.tolist())) == generation.members
        for individual, birth in zip(generation.ids.tolist(), generation.births.tolist(), strict=True):
            assert birth_of.setdefault(individual, birth) == birth
    assert generation.ids.max() < generation.born


def test_its_state_is_plain_json_and_comes_back_whole() -> None:
    generation = lived(after(1, 1, NOBODY, mates=[2, NOBODY, NOBODY]), np.array([0.1, np.nan, 3.0]))
    back = Generation.of_state(json.loads(json.dumps(generation.get_state())))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(_values(generation), _values(back), strict=True))


def _values(generation: Generation) -> list[np.ndarray]:
    return [np.asarray(value, float) for value in generation.get_state().values()]


def test_a_state_that_lacks_something_is_told() -> None:
    with pytest.raises(UserError, match="lacks births"):
        Generation.of_state({k: v for k, v in Generation.first(2).get_state().items() if k != "births"})


def test_a_part_has_the_individuals_of_its_places() -> None:
    part = after(0, 0, 2, 3).part(np.array([1, 3]))
    assert part.ids.tolist() == [4, 3]
    assert part.number == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.array([0, 1]), "returned 2 members, and must return 3"),
        (np.array([0, 1, 3]), "returned the place 3, and must return places of 0 to 2"),
        (np.array([0, 1, -2]), "the place -2"),
        (np.array([0.0, 1.0, 2.0]), "must return whole numbers"),
        (np.array([[0, 1, 2]]), "must return whole numbers"),
    ],
)
def test_an_answer_that_is_no_generation_is_refused(answer: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_sources(answer, 3)
