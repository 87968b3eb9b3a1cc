"""Who hears a transmission: rows of listeners, and coins for all (transmission, listener) pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from popcomm.channels import Custom, Ring
from popcomm.channels.broadcast.audience import SURE, Audience, arrivals, skip
from popcomm.channels.broadcast.log import PUBLISHED, Log, entries

STAR = np.zeros((4, 4), bool)
STAR[0, 1:] = STAR[1:, 0] = True


def of(topology, n: int, worlds: int = 1) -> Audience:
    import torch

    links = topology.connect(torch.ones(worlds, n, dtype=torch.bool))
    return Audience.of_links(links.senders.numpy(), links.mask.numpy())


def a_log(worlds, sources) -> Log:
    worlds, sources = np.broadcast_arrays(np.asarray(worlds), np.asarray(sources))
    return entries(worlds, np.ones(len(worlds), np.int32), sources)


def chain_and_reverse() -> Audience:
    """World 0: 1 hears 0, 2 hears 1. World 1: 0 hears 1, 1 hears 2."""
    chain = np.zeros((3, 3), bool)
    chain[0, 1] = chain[1, 2] = True
    return of(Custom(np.stack([chain, chain.T])), 3, 2)


AUDIENCES = {
    "full": (Audience.everybody(4), [[0, 1, 2, 3]] * 5),
    "ring": (of(Ring(2), 4), [[0, 1, 3], [0, 1, 2], [1, 2, 3], [0, 2, 3], [0, 1, 2, 3]]),
    "star": (of(Custom(STAR), 4), [[0, 1, 2, 3], [0, 1], [0, 2], [0, 3], [0, 1, 2, 3]]),
}


@pytest.mark.parametrize("name", AUDIENCES)
def test_rows_are_the_listeners_the_source_and_for_published_words_everybody(name):
    audience, rows = AUDIENCES[name]
    log = a_log(0, [0, 1, 2, 3, PUBLISHED])
    entry, listener = audience.pairs(log)
    assert [listener[entry == i].tolist() for i in range(5)] == rows


def test_worlds_may_have_rows_of_their_own():
    log = a_log([0, 0, 1, 1, 1], [0, 2, 0, 2, PUBLISHED])
    entry, listener = chain_and_reverse().pairs(log)
    assert [listener[entry == i].tolist() for i in range(5)] == [[0, 1], [2], [0], [1, 2], [0, 1, 2]]


def test_a_sender_named_twice_is_heard_once():
    senders, mask = np.array([[[1, 1], [0, 0]]]), np.array([[[True, True], [True, False]]])
    assert Audience.of_links(senders, mask).pairs(a_log(0, [1]))[1].tolist() == [0, 1]


@pytest.mark.parametrize("name", AUDIENCES)
def test_holds_says_who_is_in_which_row(name):
    audience, rows = AUDIENCES[name]
    log = a_log(0, [0, 1, 2, 3, PUBLISHED])
    entry, listener = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    expected = [j in rows[i] for i, j in zip(entry, listener, strict=True)]
    assert audience.holds(log, entry, listener).tolist() == expected


def test_indegree_counts_others_only():
    everybody = np.ones((7, 4), bool)
    assert AUDIENCES["full"][0].indegree(everybody).tolist() == [3, 3, 3, 3]
    assert AUDIENCES["star"][0].indegree(everybody).tolist() == [3, 1, 1, 1]
    assert chain_and_reverse().indegree(np.ones((2, 3), bool)).tolist() == [[0, 1, 1], [1, 1, 0]]


def test_indegree_counts_those_who_are_there():
    present = np.array([[True, True, True, True], [True, False, True, False], [False, True, False, False]])
    assert AUDIENCES["full"][0].indegree(present).tolist() == [[3, 3, 3, 3], [1, 2, 1, 2], [1, 0, 1, 1]]
    assert AUDIENCES["star"][0].indegree(present).tolist() == [[3, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]]


CHANCES = {
    "scalar": lambda n, b: 0.3,
    "equal": lambda n, b: np.full(n, 0.3),
    "of seats": lambda n, b: np.array([0.05, 0.5, 0.0, 0.9])[:n],
    "of worlds": lambda n, b: np.random.default_rng(9).random((b, n)) * (np.random.default_rng(8).random((b, n)) < 0.8),
    "nearly sure": lambda n, b: np.array([1.0, 0.999, 0.2, 1e-3])[:n],
}


@pytest.mark.parametrize("chance_name", CHANCES)
@pytest.mark.parametrize("name", [*AUDIENCES, "own rows"])
def test_each_pair_comes_up_with_its_own_probability_and_no_other_does(name, chance_name):
    """4,000 copies of each kind of entry: every pair's count is binomial, within 5 standard errors; none twice."""
    audience = chain_and_reverse() if name == "own rows" else AUDIENCES[name][0]
    n, worlds, copies = audience.num_agents, 2, 4000
    chance = CHANCES[chance_name](n, worlds)
    world, source, _ = (
        a.ravel() for a in np.meshgrid(np.arange(worlds), np.arange(-1, n), np.arange(copies), indexing="ij")
    )
    log = a_log(world, source)
    entry, listener = audience.hits(log, chance, np.random.default_rng(17))
    assert len(np.unique(entry * np.int64(n) + listener)) == len(entry)
    counts = np.zeros((worlds, n + 1, n))
    np.add.at(counts, (world[entry], source[entry] + 1, listener), 1)
    allowed = np.zeros_like(counts)
    pair_entry, pair_listener = audience.pairs(log)
    allowed[world[pair_entry], source[pair_entry] + 1, pair_listener] = 1
    p = np.broadcast_to(chance, (worlds, n))[:, None, :] * allowed
    assert np.all(np.abs(counts - copies * p) <= 5 * np.sqrt(copies * p * (1 - p)))


@pytest.mark.parametrize("chance_name", ["scalar", "of seats"])
@pytest.mark.parametrize("name", ["full", "star"])
def test_pairs_are_independent(name, chance_name):
    """Counts of an entry's heads have the variance of independent coins, and neighbours in the log no covariance."""
    audience, rows = AUDIENCES[name]
    chance = np.broadcast_to(CHANCES[chance_name](4, 1), 4)
    m = 40_000
    entry, _ = audience.hits(a_log(0, np.zeros(m, int)), CHANCES[chance_name](4, 1), np.random.default_rng(5))
    heads = np.bincount(entry, minlength=m)
    p = chance[rows[0]]
    variance, fourth = (p * (1 - p)).sum(), np.mean((heads - heads.mean()) ** 4)
    assert abs(heads.var() - variance) < 4.5 * np.sqrt((fourth - variance**2) / m)
    covariance = np.mean((heads[1:] - p.sum()) * (heads[:-1] - p.sum()))
    assert abs(covariance) < 4.5 * variance / np.sqrt(m)


def test_joint_outcomes_of_unequal_coins_are_products():
    chance, m = np.array([0.2, 0.5, 0.7]), 30_000
    entry, listener = Audience.everybody(3).hits(a_log(0, np.zeros(m, int)), chance, np.random.default_rng(6))
    outcome = np.bincount(entry, weights=2.0**listener, minlength=m).astype(int)
    bits = np.arange(8)[:, None] >> np.arange(3) & 1
    expected = m * np.prod(np.where(bits, chance, 1 - chance), axis=1)
    assert stats.chisquare(np.bincount(outcome, minlength=8), expected).pvalue > 1e-4


@pytest.mark.parametrize("name", [*AUDIENCES, "own rows"])
@pytest.mark.parametrize("as_array", [False, True])
def test_probability_zero_is_nobody_and_probability_one_is_everybody(name, as_array):
    audience = chain_and_reverse() if name == "own rows" else AUDIENCES[name][0]
    log, rng = a_log(np.repeat([0, 1], 50), np.tile([0, 1, 2, PUBLISHED, 0], 20)), np.random.default_rng(0)
    n = audience.num_agents
    assert len(audience.hits(log, np.zeros(n) if as_array else 0.0, rng)[0]) == 0
    sure = audience.hits(log, np.ones(n) if as_array else 1.0, rng)
    assert all(np.array_equal(a, b) for a, b in zip(sure, audience.pairs(log), strict=True))


def test_sure_listeners_hit_surely_beside_others_that_do_not_and_never_ones_never():
    chance = np.array([1.0, 0.0, 0.4, 1.0])
    _entry, listener = Audience.everybody(4).hits(a_log(0, np.zeros(5000, int)), chance, np.random.default_rng(0))
    counts = np.bincount(listener, minlength=4)
    assert counts[[0, 1, 3]].tolist() == [5000, 0, 5000]
    assert 0 < counts[2] < 5000
    assert np.exp(-SURE) < 1e-13


def test_silence_is_heard_by_nobody():
    empty = a_log(np.zeros(0, int), np.zeros(0, int))
    for audience, _ in AUDIENCES.values():
        for chance in (0.5, 1.0, np.array([0.1, 0.2, 0.3, 0.4])):
            assert len(audience.hits(empty, chance, np.random.default_rng(0))[0]) == 0


@settings(max_examples=60, deadline=None)
@given(
    trials=st.integers(1, 400),
    chance=st.one_of(st.floats(1e-6, 1 - 1e-6), st.sampled_from([1e-300, 1e-12, 1 - 1e-15])),
    seed=st.integers(0, 99),
)
def test_skipping_finds_places_in_order_and_within_the_trials(trials, chance, seed):
    places = skip(trials, chance, np.random.default_rng(seed))
    assert np.all(np.diff(places) > 0)
    assert not len(places) or (places[0] >= 0 and places[-1] < trials)


@pytest.mark.parametrize("chance", [0.02, 0.5, 0.97])
def test_skipping_counts_are_binomial_and_every_trial_is_as_likely(chance):
    rng, trials, rounds = np.random.default_rng(3), 40, 5000
    found = [skip(trials, chance, rng) for _ in range(rounds)]
    counts = np.bincount([len(f) for f in found], minlength=trials + 1)
    expected = rounds * stats.binom.pmf(np.arange(trials + 1), trials, chance)
    common = expected > 5
    observed = np.append(counts[common], counts[~common].sum())
    assert stats.chisquare(observed, np.append(expected[common], expected[~common].sum())).pvalue > 1e-4
    places = np.bincount(np.concatenate(found), minlength=trials)
    assert np.abs(places - rounds * chance).max() < 4.5 * np.sqrt(rounds * chance * (1 - chance))


class FewDraws:
    """A generator that hands out a tenth of what is asked for."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def standard_exponential(self, count: int) -> np.ndarray:
        return self._rng.standard_exponential(1 + count // 10)


def test_skipping_goes_on_when_the_first_draws_do_not_reach_the_end():
    """Every stretch of the trials has its share of successes, and no place comes twice."""
    places = skip(100_000, 0.3, FewDraws())
    assert np.all(np.diff(places) > 0)
    stretches = np.bincount(places // 10_000, minlength=10)
    assert len(stretches) == 10
    assert np.abs(stretches - 3000).max() < 4.5 * np.sqrt(10_000 * 0.3 * 0.7)


def test_arrivals_are_sorted_poisson_points():
    rng = np.random.default_rng(0)
    found = [arrivals(2.5, rng) for _ in range(4000)]
    counts = np.array([len(f) for f in found])
    assert abs(counts.mean() - 2.5) < 4 * np.sqrt(2.5 / 4000)
    assert all(np.all(np.diff(f) >= 0) for f in found[:50])
    assert stats.kstest(np.concatenate(found) / 2.5, "uniform").pvalue > 1e-4
