"""Mutation, crossover, and hyper-parameters that are inherited."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popcomm.evolution import (
    AgeLimit,
    Generation,
    Novelty,
    Strategy,
    TopK,
    Tournament,
    Truncation,
    chosen,
    crossed,
    inherited,
    lived,
    mates_of,
    mutate,
    taught_by_the_living,
)


def mutated(tensor: torch.Tensor, places: list[int], std: float, seed: int = 0) -> torch.Tensor:
    result = tensor.clone()
    mutate(result, torch.tensor(places, dtype=torch.long), std, torch.Generator().manual_seed(seed))
    return result


def test_mutation_0_changes_no_bit() -> None:
    weights = torch.randn(4, 5, 6)
    assert torch.equal(mutated(weights, [0, 1, 2, 3], 0.0), weights)


def test_only_children_change() -> None:
    weights = torch.randn(4, 5)
    after = mutated(weights, [1, 3], 0.1)
    assert (after != weights).any(1).tolist() == [False, True, False, True]


def test_a_step_is_a_share_of_the_tensors_own_size() -> None:
    weights = torch.randn(8, 200, 200) * torch.logspace(-3, 3, 8).view(-1, 1, 1)
    step = mutated(weights, list(range(8)), 0.05) - weights
    sizes = (step.square().mean((1, 2)) / weights.square().mean((1, 2))).sqrt()
    assert sizes.tolist() == pytest.approx([0.05] * 8, rel=0.02)


def test_a_tensor_of_zeros_stays() -> None:
    assert not mutated(torch.zeros(2, 3), [0, 1], 1.0).any()


def test_noise_is_not_shared_among_children_and_is_a_function_of_the_seed() -> None:
    weights = torch.ones(3, 50)
    after = mutated(weights, [0, 1, 2], 0.1)
    assert not torch.allclose(after[0], after[1])
    assert torch.equal(after, mutated(weights, [0, 1, 2], 0.1))
    assert not torch.equal(after, mutated(weights, [0, 1, 2], 0.1, seed=1))


def test_children_drawn_in_several_chunks_are_all_mutated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popcomm.evolution.variation.CHUNK", 64)
    weights = torch.ones(9, 40)
    assert (mutated(weights, list(range(9)), 0.1) != weights).all(1).all()


@given(st.lists(st.integers(-1, 5), min_size=6, max_size=6), st.integers(0, 20))
def test_mates_are_other_parents_of_the_same_generation(sources: list[int], seed: int) -> None:
    given = np.array(sources)
    mates = mates_of(given, np.random.default_rng(seed))
    children = (given != np.arange(6)) & (given >= 0)
    parents = set(given[children].tolist())
    for child, source, mate in zip(children, given, mates, strict=True):
        if mate >= 0:
            assert child
            assert mate in parents - {source}
        else:
            assert not child or len(parents) < 2


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "strategy",
    [Truncation(1, 0.5), Truncation(0, 0.5), Truncation(3, 1.0), TopK(2), Tournament(2, 1.0), AgeLimit(2), Novelty()],
    ids=str,
)
def test_whoever_teaches_lives_on_and_belongs_to_the_group(strategy: Strategy, groups: int) -> None:
    generation, places = lived(Generation.first(8), np.arange(8.0)), np.arange(8)
    traits = {"messages": np.random.default_rng(0).dirichlet(np.ones(3), 8)}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        said = chosen(strategy, generation, traits, rng, groups)
        taught = taught_by_the_living(said, generation.fitness, rng, groups)
        teachers = taught[taught != places]
        assert (taught[teachers] == teachers).all()
        assert (taught // (8 // groups) == places // (8 // groups)).all()
        living = said == places
        assert (taught[living] == places[living]).all()  # who lives on still does
        kept = ~living & living[np.maximum(said, 0)]
        assert (taught[kept] == said[kept]).all()  # and a parent that lives on is the teacher


def test_teachers_are_parents_that_stay_else_the_fittest_who_stays_else_the_fittest_parent() -> None:
    def taught(*sources: int) -> list[int]:
        worth = np.array([5.0, np.nan, 3.0, 4.0])
        return taught_by_the_living(np.array(sources), worth, np.random.default_rng(0)).tolist()

    assert taught(3, 1, 2, 2) == [2, 1, 2, 2]  # 3 is replaced, 2 is a parent that stays, 1 is none
    assert taught(0, 1, 3, 2) == [0, 1, 0, 0]  # both parents are replaced, and 0 is the fittest who stays
    assert taught(2, 2, 3, 2) == [3, 3, 3, 3]  # nobody stays, and of the parents 3 is fitter than 2
    assert taught(-1, -1, -1, -1) == [-1] * 4  # nobody has a parent


def test_whole_tensors_cross_over_with_the_given_probability() -> None:
    sources, mates = np.array([0, 1, 0, 1]), np.array([-1, -1, 1, 0])
    rows = crossed(sources, mates, 4000, 0.3, np.random.default_rng(0))
    assert (rows[:, :2] == sources[:2]).all()
    assert (rows[:, 2] == 1).mean() == pytest.approx(0.3, abs=0.03)
    assert set(rows[:, 3].tolist()) == {0, 1}


def test_hyper_parameters_of_children_are_a_factor_up_or_down_and_others_stay() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    after = inherited(values, np.array([0, 0, 3, 3]), 1.25, (0.1, 10.0), np.random.default_rng(0))
    assert after[[0, 3]].tolist() == [1.0, 4.0]
    assert after[1] in (1.25, 0.8)
    assert after[2] in (5.0, 3.2)


def test_hyper_parameters_stay_within_their_bounds() -> None:
    after = inherited(np.full(50, 1.0), np.zeros(50, int), 2.0, (0.9, 1.5), np.random.default_rng(0))
    assert set(after[1:].tolist()) == {0.9, 1.5}


def test_a_factor_of_1_perturbs_nothing() -> None:
    after = inherited(np.array([1.0, 7.0]), np.array([1, 1]), 1.0, (0.1, 10.0), np.random.default_rng(0))
    assert after.tolist() == [7.0, 7.0]


def test_who_is_made_anew_takes_the_value_of_somebody() -> None:
    values = np.array([1.0, 2.0])
    found = {inherited(values, np.array([0, -1]), 1.5, (0.1, 9.0), np.random.default_rng(s))[1] for s in range(20)}
    assert found == {1.0, 2.0}


def test_both_parents_are_of_a_childs_own_group_and_so_is_of_whom_one_made_anew_has_its_rate() -> None:
    sources = np.array([0, 1, 0, 1, 4, 5, 4, 5, 8, 8, 8, -1])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mates = mates_of(sources, rng, 3)
        assert mates.tolist() == [-1, -1, 1, 0, -1, -1, 5, 4, -1, -1, -1, -1]
        values = inherited(np.arange(1.0, 13.0), sources, 1.0, (0.1, 20.0), rng, 3)
        assert values[:11].tolist() == (sources[:11] + 1.0).tolist()
        assert 9 <= values[11] <= 12
    assert set(mates_of(sources, np.random.default_rng(0))[2:4]) <= {0, 1, 4, 5, 8}
