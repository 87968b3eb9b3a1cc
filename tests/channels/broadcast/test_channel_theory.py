"""The channel against the theory of branching processes, by simulation with fixed seeds and stated intervals."""

import numpy as np
import pytest
from scipy import stats

from popcomm.channels import Custom, Full, Ring
from popcomm.channels.broadcast.decisions import Bernoulli, Controlled, CountMin, LocalRule, PerAgent
from popcomm.channels.broadcast.reflexes import ImmediateFeedback, Publishing, WordRepetition
from popcomm.schedules import Clock, LoadLinear
from popcomm.theory import (
    Consul,
    TotalProgeny,
    alive_by_type,
    alive_probability,
    extinction_probability,
    next_generation_matrix,
    progeny_moments,
    repetition_threshold,
    spectral_radius,
    stationary_load,
)
from tests.channels.broadcast.airs import KIND, A, advance, opened, progeny, repeating

RARE = 1e-4  # a p-value below it fails a test; with fixed seeds it either always does or never


def links(topology, n: int) -> np.ndarray:
    """T [N, N], whether j hears i, without immediate feedback."""
    import torch

    found = topology.connect(torch.ones(1, n, dtype=torch.bool))
    hears = np.zeros((n, n))
    receiver, slot = np.nonzero(found.mask[0].numpy())
    hears[found.senders[0].numpy()[receiver, slot], receiver] = 1
    return hears


def star(n: int) -> Custom:
    """Seat 0 hears all, and all hear it."""
    hears = np.zeros((n, n), bool)
    hears[0, 1:] = hears[1:, 0] = True
    return Custom(hears)


def random_graph(n: int) -> Custom:
    """A quarter of all directed pairs, and a ring, so that everybody hears somebody."""
    hears = np.random.default_rng(1).random((n, n)) < 0.25
    hears |= np.roll(np.eye(n, dtype=bool), 1, axis=1)
    np.fill_diagonal(hears, False)
    return Custom(hears)


def spread(p, worlds: int = 4000, topology=None, feedback: bool = True, sender: int = 0, n: int = 0, seed: int = 0):
    """Total progeny of one word in each of many worlds, nothing lost: [worlds]."""
    decision = PerAgent(p) if np.ndim(p) else Bernoulli(p)
    reflexes = repeating(decision, feedback)
    air = opened(n or len(p), reflexes, worlds, topology, capacity=300, inbox=1, seed=seed)
    total = progeny(air, sender)
    assert air.traffic.read()["drops"] == 0
    return total


def fits(distribution, sample: np.ndarray) -> float:
    """p-value of chi-square for a distribution of 1, 2, ...; values are pooled until at least 8 are expected."""
    edges, last = [], 0.0
    for k in range(1, int(sample.max()) + 1):
        if (float(distribution.cdf(k)) - last) * len(sample) >= 8 and float(distribution.sf(k)) * len(sample) >= 8:
            edges.append(k)
            last = float(distribution.cdf(k))
    observed = np.bincount(np.searchsorted(edges, sample), minlength=len(edges) + 1)
    expected = np.diff([0.0, *(float(distribution.cdf(k)) for k in edges), 1.0]) * len(sample)
    return stats.chisquare(observed, expected).pvalue


def near(sample: np.ndarray, mean: float, var: float) -> bool:
    """Whether a sample's mean is within 4 standard errors."""
    return abs(sample.mean() - mean) < 4 * np.sqrt(var / len(sample))


def same_distribution(one: np.ndarray, other: np.ndarray) -> bool:
    """Kolmogorov and Smirnov's test; on whole numbers it rejects too seldom rather than too often."""
    return stats.ks_2samp(one, other).pvalue > RARE


# ---- total progeny ----


@pytest.mark.parametrize(("n", "p"), [(2, 0.3), (2, 0.4), (10, 0.06), (1, 0.7)])
def test_with_feedback_total_progeny_is_consuls_distribution_of_all_agents(n, p):
    distribution = Consul(n, p)
    total = spread(p, n=n)
    assert fits(distribution, total) > RARE
    assert near(total, distribution.mean(), distribution.var())


@pytest.mark.parametrize(("n", "p"), [(3, 0.3), (11, 0.08)])
def test_without_feedback_total_progeny_is_consuls_distribution_of_all_but_one(n, p):
    total = spread(p, feedback=False, n=n)
    assert fits(Consul(n - 1, p), total) > RARE
    assert fits(Consul(n, p), total) < 1e-6, "the sample is large enough to tell the two distributions apart"


def test_unequal_agents_follow_otter_and_dwass():
    p = [0.45, 0.02, 0.2, 0.0, 0.1]
    distribution, total = TotalProgeny(p), spread(p)
    assert fits(distribution, total) > RARE
    assert near(total, distribution.mean(), distribution.var())


def test_many_words_at_once_are_many_ancestors():
    p, worlds = [0.3, 0.2, 0.1], 4000
    air = opened(3, repeating(PerAgent(p)), worlds, capacity=300, inbox=1)
    advance(air, A)
    total = air.log.counts(worlds) + progeny_of_rest(air)
    assert fits_from(TotalProgeny(p, ancestors=3), total, 3) > RARE


def progeny_of_rest(air) -> np.ndarray:
    """All transmissions that follow when nobody speaks any more: [B]."""
    total = np.zeros(air.num_worlds, np.int64)
    while len(air.log):
        advance(air)
        total += air.log.counts(air.num_worlds)
    return total


def fits_from(distribution, sample: np.ndarray, first: int) -> float:
    """`fits` for a distribution that begins at `first`."""
    assert sample.min() >= first
    return fits(distribution, sample)


@pytest.mark.parametrize("n", [3, 6])
def test_on_a_ring_with_feedback_three_hear_each_word_however_long_the_ring(n):
    total = spread(0.25, topology=Ring(2), n=n)
    distribution = Consul(3, 0.25)
    assert fits(distribution, total) > RARE
    assert near(total, distribution.mean(), distribution.var())


def test_on_a_ring_without_feedback_two_hear_each_word():
    assert fits(Consul(2, 0.35), spread(0.35, topology=Ring(2), feedback=False, n=6)) > RARE


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("sender", [0, 17])
def test_on_a_star_progeny_depends_on_who_began_as_the_theory_says(feedback, sender):
    """Of 100 agents the hub is heard by all, a leaf by the hub: R is 0.55 at p = 0.05, though p sums to 5."""
    graph = star(100)
    hears = links(graph, 100) + feedback * np.eye(100)
    mean, var = progeny_moments(next_generation_matrix(hears, np.full(100, 0.05)))
    total = spread(0.05, worlds=2500, topology=graph, feedback=feedback, sender=sender, n=100)
    assert near(total, mean[sender], var[sender])
    assert not near(total, mean[17 - sender], var[17 - sender])


def test_dropout_multiplies_the_probabilities():
    """Missed words are not repeated: the distribution is Consul's with p (1 - dropout)."""
    air = opened(4, repeating(Bernoulli(0.4)), 4000, capacity=300, inbox=1, dropout=0.5)
    assert fits(Consul(4, 0.2), progeny(air)) > RARE


# ---- extinction ----


@pytest.mark.parametrize("p", [0.30, 0.36])
def test_words_are_alive_after_t_generations_as_often_as_the_theory_says(p):
    """Three agents: R = 0.9 dies out, R = 1.08 does not always."""
    worlds = 4000
    air = opened(3, repeating(Bernoulli(p)), worlds, capacity=600, inbox=1)
    advance(air, [A, 0, 0])
    alive = []
    for _ in range(40):
        advance(air)
        alive.append(np.mean(air.log.counts(worlds) > 0))
    expected = alive_probability(np.full(3, p), np.arange(1, 41))
    assert np.all(np.abs(alive - expected) < 4.5 * np.sqrt(expected * (1 - expected) / worlds))
    survival = 1 - extinction_probability(np.full(3, p))
    assert (survival == 0) == (p < 1 / 3)
    assert alive[-1] > survival - 0.02


@pytest.mark.parametrize(("below", "worlds"), [(True, 1500), (False, 1500)])
@pytest.mark.parametrize("name", ["ring", "star"])
def test_the_threshold_is_that_of_the_graph(name, below, worlds):
    """A tenth under the threshold (1/3 on a ring, 0.0913 on a star of 100) words end; a tenth above, some live on."""
    graph, n = (Ring(2), 9) if name == "ring" else (star(100), 100)
    hears = links(graph, n) + np.eye(n)
    threshold = float(repetition_threshold(hears))
    assert threshold == pytest.approx({"ring": 1 / 3, "star": 0.0913}[name], abs=5e-5)
    p = threshold * (0.9 if below else 1.1)
    air = opened(n, repeating(Bernoulli(p)), worlds, graph, capacity=1500, inbox=1)
    words = np.zeros(n, np.int32)
    words[0] = A
    advance(air, words)
    for _ in range(30):
        advance(air)
    alive = np.mean(air.log.counts(worlds) > 0)
    expected = float(alive_by_type(next_generation_matrix(hears, np.full(n, p)), 30)[0])
    assert abs(alive - expected) < 4.5 * np.sqrt(expected * (1 - expected) / worlds)
    assert (alive < 0.03) == below


# ---- load ----


def loads(air, burn_in: int, words=None) -> np.ndarray:
    """The load of each world after so many steps: [B]."""
    for _ in range(burn_in):
        advance(air, 0 if words is None else words())
    return air.log.counts(air.num_worlds)


@pytest.mark.parametrize("p", [[0.12] * 5, [0.4, 0.05, 0.0, 0.25]])
def test_the_load_of_a_published_channel_is_stationary_as_the_theory_says(p):
    """Nobody speaks: mean and variance within 4 standard errors, and chi-square for the whole distribution."""
    worlds = 5000
    distribution = stationary_load(1.5, p)
    air = opened(len(p), [*repeating(PerAgent(p)), Publishing(1.5)], worlds, capacity=200, inbox=1)
    load = loads(air, 60)
    assert near(load, distribution.mean, distribution.var)
    fourth = np.mean((load - load.mean()) ** 4)
    assert abs(load.var() - distribution.var) < 4 * np.sqrt((fourth - load.var() ** 2) / worlds)
    top = distribution.capacity(10 / worlds)
    observed = np.bincount(np.minimum(load, top), minlength=top + 1)
    expected = worlds * np.append(distribution.pmf(np.arange(top)), distribution.sf(top - 1))
    assert expected.min() > 5
    assert stats.chisquare(observed, expected).pvalue > RARE


def test_a_capacity_for_a_stated_loss_is_exceeded_as_seldom():
    p, loss = [0.2] * 4, 0.01
    distribution = stationary_load(2.0, p)
    capacity = distribution.capacity(loss)
    air = opened(4, [*repeating(PerAgent(p)), Publishing(2.0)], 8000, capacity=400, inbox=1)
    over = np.mean(loads(air, 60) > capacity)
    assert abs(over - distribution.sf(capacity)) < 4.5 * np.sqrt(loss / 8000)


def test_a_fade_in_load_is_a_straight_line_in_load():
    """R0 = 0.8, one published word a step: 5 transmissions, and 4, 3, 2, 1 at quarters of the way."""
    worlds = 4000
    repetition = WordRepetition(LocalRule(0.8), schedule=LoadLinear(0, 400))
    air = opened(4, [ImmediateFeedback(), repetition, Publishing(1.0)], worlds, capacity=200, inbox=1)
    for step_of_training, mean in ((0, 5.0), (100, 4.0), (200, 3.0), (300, 2.0), (400, 1.0)):
        air.observe(Clock(step_of_training))
        r = 1 - 1 / mean
        var = stationary_load(1.0, np.full(4, r / 4)).var
        assert near(loads(air, 50), mean, var)


# ---- the local rule ----


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("name", ["full", "ring", "star", "random"])
def test_the_local_rule_reproduces_at_its_target_on_any_graph(name, feedback):
    """All speak alike. Repetitions over transmissions, and what the channel itself reports, are the target."""
    n, target, worlds, steps = 12, 0.6, 150, 60
    graph = {"full": Full(), "ring": Ring(2), "star": star(n), "random": random_graph(n)}[name]
    hears = links(graph, n) + feedback * np.eye(n)
    p = LocalRule(target).probabilities(hears.sum(0))
    assert spectral_radius(next_generation_matrix(hears, p)) == pytest.approx(target)
    air = opened(n, repeating(LocalRule(target), feedback), worlds, graph, capacity=150, inbox=1, seed=2)
    rng = np.random.default_rng(3)
    parents = children = 0
    for t in range(steps):
        before = len(air.log)
        advance(air, np.where(rng.random((worlds, n)) < 0.3, KIND.uniform(rng, worlds * n).reshape(worlds, n), 0))
        if t >= 20:  # by then seats transmit alike, whatever they hear
            parents += before
            children += int((air.log.generation > 0).sum())
    measured = air.traffic.read()
    assert measured["drops"] == 0
    # A transmission of the star's hub has up to n p children, one of a leaf p: more than binomial variance.
    assert abs(children / parents - target) < 4.5 * np.sqrt(n * target / parents)
    assert measured["reproduction"] == pytest.approx(target, abs=0.03)
    assert measured["load"] == pytest.approx(0.3 * n / (1 - target), rel=0.06)


# ---- bounds and control ----


@pytest.mark.parametrize("topology", [Full(), Ring(2)])
def test_count_min_bounds_every_words_progeny_though_all_repeat_surely(topology):
    n, cap = 8, 2
    air = opened(n, repeating(CountMin(cap, window=10_000)), 300, topology, capacity=3000, inbox=1)
    total = progeny(air)
    assert total.max() == 1 + n * cap
    assert np.all(total > n)


def test_control_keeps_reproduction_at_its_target_though_agents_have_learned_to_echo():
    """Agents repeat of themselves 0.3 times what is on the air; the reflex leaves that out of its 0.6."""
    n, worlds, target = 5, 40, 0.6
    rng = np.random.default_rng(4)
    results = {}
    for name, decision in (("controlled", Controlled(target, gain=0.05)), ("local rule", LocalRule(target))):
        air = opened(n, [*repeating(decision), Publishing(2.0)], worlds, capacity=60, inbox=1, seed=5)
        for t in range(240):
            if t == 120:
                air.traffic.read()
            advance(air, echoes(air, 0.3, rng))
        results[name] = air.traffic.read()
    assert results["controlled"]["reproduction"] == pytest.approx(target, abs=0.03)
    assert results["local rule"]["reproduction"] > target + 0.15
    assert results["controlled"]["load"] == pytest.approx(2 / (1 - target), rel=0.08)
    assert results["controlled"]["drops"] == 0


def echoes(air, share: float, rng: np.random.Generator) -> np.ndarray:
    """Words [B, N] that agents say again: each entry on the air by one other agent, with probability `share`."""
    words = np.zeros((air.num_worlds, air.num_agents), np.int32)
    by = rng.integers(0, air.num_agents, len(air.log))
    said = (rng.random(len(air.log)) < share) & (by != air.log.source)
    words[air.log.world[said], by[said]] = air.log.word[said]
    return words


def test_the_brake_makes_a_target_above_one_finite():
    """R = 1.2 would fill the log; with the brake the load stays at 1 - 1/2.4 of it, 35, or near."""
    results = {}
    for name, decision in (("braked", Controlled(1.2)), ("free", Bernoulli(1.2 / 5))):
        air = opened(5, [*repeating(decision), Publishing(1.0)], 60, capacity=60, inbox=1, seed=6)
        loads(air, 60)
        air.traffic.read()
        loads(air, 60)
        results[name] = air.traffic.read()
    assert 30 < results["braked"]["load"] < 45
    assert results["braked"]["drops"] < 1e-3
    assert results["free"]["load"] > 55
    assert results["free"]["drops"] > 0.1


# ---- distributions that do not depend on how they are computed ----

REFLEXES = {
    "plain": repeating(PerAgent([0.3, 0.2, 0.1])),
    "hijack": repeating(Bernoulli(0.3), slot="hijack"),
    "dedup": repeating(Bernoulli(0.35), dedup=True),
    "capped": repeating(CountMin(2, Bernoulli(0.4), window=3)),
}


@pytest.mark.parametrize("name", REFLEXES)
def test_distributions_are_unchanged_by_batching(name):
    """Total progeny in 2,000 worlds of one air, and in 120 airs of one world."""
    together = opened(3, REFLEXES[name], 2000, capacity=12, inbox=12, seed=7)
    apart = [opened(3, REFLEXES[name], 1, capacity=12, inbox=12, seed=1000 + i) for i in range(120)]
    assert same_distribution(progeny(together), np.array([progeny(air)[0] for air in apart]))


def test_the_load_of_a_busy_channel_is_unchanged_by_batching():
    reflexes = [*repeating(LocalRule(0.6)), Publishing(1.0)]
    together = opened(3, reflexes, 2000, capacity=6, inbox=2, seed=8)
    apart = [opened(3, reflexes, 1, capacity=6, inbox=2, seed=2000 + i) for i in range(120)]
    assert same_distribution(loads(together, 9), np.array([loads(air, 9)[0] for air in apart]))


def test_worlds_of_one_air_are_independent():
    """Halves of the worlds have uncorrelated progeny, and the mean of all has the variance of independent ones."""
    total = spread([0.3, 0.2, 0.1], worlds=6000, seed=9)
    ranks = stats.rankdata(total).reshape(-1, 2)
    assert abs(np.corrcoef(ranks.T)[0, 1]) < 4 / np.sqrt(3000)


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_distributions_are_unchanged_by_the_order_of_seats(order):
    p = np.array([0.45, 0.02, 0.25])
    one, other = spread(p, seed=10), spread(p[order], sender=order.index(0), seed=11)
    assert same_distribution(one, other)


def test_who_is_dead_takes_no_part():
    """Two of five are dead: the distribution is that of the three others."""
    lives = np.array([True, False, True, True, False])
    worlds = 4000
    air = opened(5, repeating(Bernoulli(0.2)), worlds, capacity=300, inbox=1)
    total = np.zeros(worlds, np.int64)
    advance(air, [A, 0, 0, 0, 0], lives)
    while len(air.log):
        total += air.log.counts(worlds)
        advance(air, 0, lives)
    assert fits(Consul(3, 0.2), total) > RARE


def test_births_and_deaths_are_a_loss_of_words_and_of_ears():
    """Each seat dies with probability d a step, its last words with it, and the newborn is deaf for a step.

    A transmission survives with 1 - d. The local rule counts who is there, so what survives has the target's number of
    repetitions, however few are left to make them: R = target (1 - d). With nu words a step the load is nu / (1 - R).
    """
    n, worlds, d, target = 4, 3000, 0.2, 0.8
    air = opened(n, repeating(LocalRule(target)), worlds, capacity=100, inbox=1, seed=12)
    rng = np.random.default_rng(13)
    for _ in range(40):
        lives = rng.random((worlds, n)) >= d
        words = np.where(rng.random((worlds, n)) < 0.5, KIND.uniform(rng, worlds * n).reshape(worlds, n), 0)
        advance(air, words, lives)
    load = air.log.counts(worlds)
    r = target * (1 - d)
    assert near(load, 0.5 * n * (1 - d) / (1 - r), load.var())
