"""Strategies: who has children and who makes room, on populations small enough to know the answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.evolution import (
    NOBODY,
    AgeLimit,
    Generation,
    Novelty,
    Strategy,
    TopK,
    Tournament,
    Truncation,
    chosen,
    lived,
    make_strategy,
    novelty,
    succeeded,
)
from popcomm.evolution.strategy import part_of

BY_FITNESS = [TopK(3), Truncation(2, 0.4), Tournament(3, 0.5), Tournament(2, 1.0)]


def of(*fitness: float) -> Generation:
    return lived(Generation.first(len(fitness)), np.array(fitness))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [10, 20, 50, 100, 1000])
def test_a_share_that_is_a_whole_number_of_members_is_that_number(size: int) -> None:
    """Also where its product in floating point is a little above: 0.07 * 100."""
    assert [part_of(number / size, size) for number in range(1, size + 1)] == list(range(1, size + 1))
    assert part_of(1e-12, size) == 1


def test_a_share_of_0_07_of_100_members_is_7_of_them() -> None:
    fitness = of(*map(float, range(100)))
    assert Truncation(share=0.07).most_parents(100) == 7
    assert set(Truncation(1, 0.07).select(fitness, {}, rng()).tolist()) == set(range(93, 100))
    assert (Tournament(3, 0.07).select(fitness, {}, rng()) != np.arange(100)).sum() == 7
    assert (Tournament(3, 0.071).select(fitness, {}, rng()) != np.arange(100)).sum() == 8


def test_top_k_replaces_all_others_by_equally_many_children() -> None:
    sources = TopK(2).select(of(5, 1, 9, 2, 3, 4), {}, rng())
    assert sources[[0, 2]].tolist() == [0, 2]
    assert sorted(sources[[1, 3, 4, 5]].tolist()) == [0, 0, 2, 2]


def test_truncation_keeps_the_elites_and_fills_the_rest_from_the_best_share() -> None:
    sources = Truncation(elites=1, share=0.5).select(of(5, 1, 9, 2), {}, rng())
    assert sources[2] == 2
    assert set(sources.tolist()) <= {0, 2}


def with_unknown(known: int, members: int) -> Generation:
    """The first are known, the later the fitter."""
    return of(*np.where(np.arange(members) < known, np.arange(members), np.nan))


@pytest.mark.parametrize(
    ("elites", "known", "replaced"),
    [
        (24, 32, 8),
        (24, 24, 6),  # a quarter of those who are known, as of all
        (24, 5, 2),
        (31, 31, 1),  # one of 32, and not none
        (1, 4, 3),  # the best lives on
        (1, 1, 0),
        (32, 20, 0),
    ],
)
def test_truncation_goes_on_while_newborns_are_unknown(elites: int, known: int, replaced: int) -> None:
    generation, places = with_unknown(known, 32), np.arange(32)
    for seed in range(5):
        sources = Truncation(elites, 0.05).select(generation, {}, rng(seed))
        assert (sources != places).tolist() == (places < replaced).tolist()  # the worst of those who are known
        parents = known - max(1, -(-known // 20))
        assert (sources[:replaced] >= parents).all()
        assert (sources[:replaced] < known).all()


def test_truncation_without_elites_replaces_all_who_are_known() -> None:
    sources = Truncation(elites=0, share=0.25).select(with_unknown(4, 8), {}, rng())
    assert sources.tolist() == [3, 3, 3, 3, 4, 5, 6, 7]


def test_without_elites_truncation_may_lose_the_best_place_but_not_its_line() -> None:
    generation = of(1, 2, 3, 4)
    for seed in range(20):
        assert set(Truncation(elites=0, share=0.25).select(generation, {}, rng(seed)).tolist()) == {3}


def test_a_tournament_of_all_members_lets_the_best_replace_the_worst() -> None:
    assert Tournament(size=4, share=0.25).select(of(3, 1, 4, 2), {}, rng()).tolist() == [0, 2, 2, 3]


def test_larger_tournaments_select_harder() -> None:
    generation = of(*range(32))

    def mean_parent(size: int) -> float:
        found = [Tournament(size, 0.5).select(generation, {}, rng(seed)) for seed in range(50)]
        return float(np.mean(np.concatenate([s[s != np.arange(32)] for s in found])))

    # The best of s of 32 drawn without replacement has the mean rank 33 s / (s + 1) - 1.
    for size in (2, 4, 8):
        assert mean_parent(size) == pytest.approx(33 * size / (size + 1) - 1, abs=1.0)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=12), st.integers(0, 10), st.sampled_from(BY_FITNESS))
def test_the_best_is_never_lost_and_a_child_is_of_one_that_lives(
    fitness: list[float], seed: int, strategy: Strategy
) -> None:
    generation = of(*fitness)
    sources = strategy.select(generation, {}, rng(seed))
    living = sources == np.arange(len(fitness))
    assert max(np.array(fitness)[living]) == max(fitness)
    assert max(fitness) == max(np.array(fitness)[sources])


@pytest.mark.parametrize("strategy", BY_FITNESS, ids=str)
def test_of_whom_nothing_is_known_lives_on_without_children(strategy: Strategy) -> None:
    generation = of(1, np.nan, 3, np.nan, 2, 4)
    for seed in range(10):
        sources = strategy.select(generation, {}, rng(seed))
        assert sources[[1, 3]].tolist() == [1, 3]
        assert (sources == 1).sum() == (sources == 3).sum() == 1


@pytest.mark.parametrize("strategy", BY_FITNESS, ids=str)
def test_where_nothing_is_known_of_anybody_all_live_on(strategy: Strategy) -> None:
    assert strategy.select(Generation.first(6), {}, rng()).tolist() == list(range(6))


@pytest.mark.parametrize("strategy", [*BY_FITNESS, AgeLimit(3)], ids=str)
def test_the_same_seed_selects_the_same(strategy: Strategy) -> None:
    generation = of(1, 1, 1, 2, 2, 0)
    first, second = (strategy.select(generation, {}, rng(4)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_equals_are_drawn_and_not_taken_in_order() -> None:
    kept = {int(np.flatnonzero(TopK(1).select(of(1, 1, 1), {}, rng(s)) == np.arange(3))[0]) for s in range(30)}
    assert kept == {0, 1, 2}


def test_under_an_age_limit_nobody_grows_older_and_as_many_are_born_in_each_generation() -> None:
    generation, strategy = Generation.first(12), AgeLimit(4)
    for number in range(1, 30):
        before = generation
        generation = succeeded(generation, strategy.select(generation, {}, rng(number)))
        assert (before.ids != generation.ids).sum() == 3
        assert generation.ages.max() <= 4
    assert sorted(generation.ages.tolist()) == [a for a in range(4) for _ in range(3)]


def test_an_age_limit_that_does_not_divide_the_members_holds_on_average() -> None:
    generation, strategy = Generation.first(3), AgeLimit(7)
    for number in range(70):
        generation = succeeded(generation, strategy.select(generation, {}, rng(number)))
    assert generation.born == 3 + 30


def test_the_parents_of_an_age_limit_live_on() -> None:
    sources = AgeLimit(2).select(Generation.first(6), {}, rng())
    assert sources[3:].tolist() == [3, 4, 5]
    assert set(sources[:3].tolist()) <= {3, 4, 5}


def test_novelty_is_the_distance_to_the_nearest_and_one_where_nothing_is_shared() -> None:
    use = np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0.5, 0.5], [np.nan] * 3])
    told = novelty(use, 1)
    assert told[:2].tolist() == [0, 0]
    assert told[2] == told[3] == pytest.approx(np.sqrt(1 - np.sqrt(0.5)))
    assert np.isnan(told[4])


def test_those_who_say_what_all_say_make_room_for_those_who_do_not() -> None:
    use = np.array([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    sources = Novelty("messages", k=1, share=0.25).select(Generation.first(4), {"messages": use}, rng())
    assert sources[3] == 3
    assert (sources == 3).sum() == 2


def test_novelty_of_weight_0_is_fitness() -> None:
    use = np.array([[1.0, 0], [1.0, 0], [1.0, 0], [0, 1.0]])
    sources = Novelty("actions", share=0.25, weight=0.0).select(of(4, 3, 2, 1), {"actions": use}, rng())
    assert sources.tolist() == [0, 1, 2, 0]


def test_within_groups_nobody_has_children_elsewhere() -> None:
    sources = chosen(TopK(1), of(1, 2, 9, 8), {}, rng(), groups=2)
    assert sources.tolist() == [1, 1, 2, 2]


class TooFew(Strategy):
    def select(self, generation, traits, rng):
        return np.zeros(2, int)


class Own(Strategy):
    """All are children of the first, whoever it is."""

    def select(self, generation, traits, rng):
        return np.where(np.arange(generation.members) % 2, NOBODY, 0)


def test_a_strategy_of_ones_own_is_one_class() -> None:
    strategy = make_strategy({"kind": f"{__name__}:Own"}, 4)
    assert chosen(strategy, Generation.first(4), {}, rng()).tolist() == [0, -1, 0, -1]


def test_a_strategy_that_returns_too_few_members_is_told() -> None:
    with pytest.raises(UserError, match=r"survival.strategy TooFew returned 2 members, and must return 3"):
        chosen(TooFew(), Generation.first(3), {}, rng())


@pytest.mark.parametrize(
    ("value", "members", "said"),
    [
        ({"kind": "top_k", "k": 5}, 4, "k is 5, and must be at most the 4 members"),
        ({"kind": "top_k", "k": 0}, 4, "k is 0"),
        ({"kind": "top_k", "k": 1}, 1, "selection needs 2 members or more, and population.members is 1"),
        ({"kind": "topk", "k": 1}, 4, "did you mean 'top_k'"),
        ({"kind": "truncation", "share": 0}, 4, "share is 0, and must be above 0 and at most 1"),
        ({"kind": "truncation", "elites": 9}, 4, "elites is 9"),
        ({"kind": "tournament", "size": 1}, 4, "size is 1"),
        ({"kind": "tournament", "size": 5}, 4, "size is 5, and must be at most the 4 members"),
        ({"kind": "age_limit", "age": 1}, 4, "age is 1"),
        ({"kind": "novelty", "distance": "message"}, 4, "did you mean 'messages'"),
        ({"kind": "novelty"}, 2, "novelty needs 3 members"),
        ({"kind": "top_k"}, 4, "missing 1 required positional argument: 'k'"),
        (3, 4, "must be a mapping with 'kind'"),
    ],
)
def test_what_cannot_select_is_refused_in_a_sentence(value: object, members: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_strategy(value, members)
