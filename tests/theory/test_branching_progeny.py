"""All transmissions of a word: against enumerated trees, exact rationals, closed forms and known tails."""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.theory import Borel, BorelTanner, Consul, TotalProgeny, extinction_probability
from popcomm.theory.distributions import CountDistribution

DISTRIBUTIONS = {
    "few agents": Consul(2, 0.45),
    "geometric": Consul(1, 0.7),
    "no repeats": Consul(3, 0.0),
    "critical": Consul(10, 0.1),
    "supercritical": Consul(3, 0.5),
    "never ends": Consul(1, 1.0),
    "nearly critical": Consul(4, 0.2499),
    "poisson": Borel(0.8),
    "poisson, supercritical": Borel(1.2),
    "poisson, two words": BorelTanner(0.99, 2),
    "different": TotalProgeny([0.1, 0.2, 0.3]),
    "different, critical": TotalProgeny([0.5, 0.25, 0.125, 0.125]),
    "different, supercritical": TotalProgeny([0.5, 0.5, 0.4], 2),
    "different, many words": TotalProgeny([0.1, 0.2, 0.3], 500),
    "one nearly sure": TotalProgeny([0.98, 0.01]),
}


@pytest.fixture(params=DISTRIBUTIONS)
def distribution(request: pytest.FixtureRequest) -> CountDistribution:
    return DISTRIBUTIONS[request.param]


def offspring(p: list[Fraction]) -> list[Fraction]:
    distribution = [Fraction(1)]
    for q in p:
        distribution = [
            a * (1 - q) + b * q for a, b in zip([*distribution, Fraction(0)], [Fraction(0), *distribution], strict=True)
        ]
    return distribution


def trees(p: list[Fraction], largest: int) -> list[Fraction]:
    """P(Z = k) for k <= largest by counting trees: Z = 1 + the sum of Z over the offspring, with no formula at all."""
    distribution = offspring(p)
    size = [Fraction(0)] * (largest + 1)
    for k in range(1, largest + 1):
        # together[c] = P(c children have k - 1 descendants in all, themselves included).
        sums = [Fraction(1), *[Fraction(0)] * (k - 1)]
        total = distribution[0] * sums[k - 1]
        for chance in distribution[1:]:
            sums = [sum((sums[a] * size[b - a] for a in range(b)), Fraction(0)) for b in range(k)]
            total += chance * sums[k - 1]
        size[k] = total
    return size


def otter_dwass(p: list[Fraction], k: int, r: int) -> Fraction:
    """(r/k) [s^(k-r)] G(s)^k by multiplication."""
    power, distribution = [Fraction(1)], offspring(p)
    for _ in range(k):
        longer = [Fraction(0)] * min(len(power) + len(distribution) - 1, k - r + 1)
        for i, a in enumerate(power):
            for j, b in enumerate(distribution):
                if i + j < len(longer):
                    longer[i + j] += a * b
        power = longer
    return Fraction(r, k) * power[k - r] if k - r < len(power) else Fraction(0)


# ---- the pmf ----


@pytest.mark.parametrize("p", [["1/4", "1/2"], ["1/8", "1/4", "3/8"], ["3/4", "1/2"], ["1/2"], ["1/4", "1/4", "1/4"]])
def test_the_distribution_is_that_of_trees_counted_one_by_one(p: list[str]) -> None:
    exact = trees([Fraction(q) for q in p], 9)
    given = [float(Fraction(q)) for q in p]
    np.testing.assert_allclose(TotalProgeny(given).pmf(np.arange(10)), [float(v) for v in exact], rtol=2e-14)
    if len(set(p)) == 1:
        consul = Consul(len(p), given[0])
        np.testing.assert_allclose(consul.pmf(np.arange(10)), [float(v) for v in exact], rtol=2e-14)


def test_two_agents_and_two_transmissions_on_paper() -> None:
    # The word, one repeat by either, and silence on both: (p (1-q) + q (1-p)) (1-p) (1-q).
    p, q = 0.3, 0.6
    assert TotalProgeny([p, q]).pmf(2) == pytest.approx((p * (1 - q) + q * (1 - p)) * (1 - p) * (1 - q), rel=1e-14)
    assert TotalProgeny([p, q]).pmf(1) == pytest.approx((1 - p) * (1 - q), rel=1e-14)


@pytest.mark.parametrize("r", [1, 2, 7])
@pytest.mark.parametrize("p", [["1/16", "1/8", "1/2"], ["7/8", "1/32", "1/32", "1/64"], ["1/2", "1/2", "3/8"]])
def test_different_agents_by_otter_and_dwass_in_rationals(p: list[str], r: int) -> None:
    distribution = TotalProgeny([float(Fraction(q)) for q in p], r)
    for k in (r, r + 1, r + 5, r + 40, r + 90):
        assert distribution.pmf(k) == pytest.approx(float(otter_dwass([Fraction(q) for q in p], k, r)), rel=1e-13)


@pytest.mark.parametrize(("n", "p"), [(2, 0.45), (10, 0.1), (3, 0.5), (40, 0.001), (1, 0.7)])
def test_equal_agents_by_consuls_formula_in_rationals(n: int, p: float) -> None:
    q = Fraction(p)
    for k in (1, 2, 10, 300, 1000):
        exact = Fraction(comb(n * k, k - 1), k) * q ** (k - 1) * (1 - q) ** (n * k - k + 1)
        if exact > Fraction(1, 10**300):
            assert Consul(n, p).pmf(k) == pytest.approx(float(exact), rel=2e-13)
            assert TotalProgeny([p] * n).pmf(k) == pytest.approx(float(exact), rel=2e-13)


def test_different_agents_meet_equal_ones() -> None:
    # Nothing else distinguishes the contour integral from the closed form.
    k = np.array([1, 2, 10, 100, 1000, 10**5, 10**9, 10**12])
    nearly = TotalProgeny([0.1 * (1 - 1e-9), 0.1 * (1 + 1e-9), *[0.1] * 8])
    np.testing.assert_allclose(nearly.pmf(k), Consul(10, 0.1).pmf(k), rtol=1e-12)
    np.testing.assert_allclose(nearly.sf(k), Consul(10, 0.1).sf(k), rtol=1e-12)


@pytest.mark.parametrize(("mu", "n"), [(0.5, 1), (0.5, 3), (1.0, 1)])
def test_borel_and_tanner_by_their_formula(mu: float, n: int) -> None:
    k = np.arange(n, 25)
    exact = [n / j * np.exp(-mu * j) * (mu * j) ** (j - n) / factorial(j - n) for j in range(n, 25)]
    np.testing.assert_allclose(BorelTanner(mu, n).pmf(k), exact, rtol=1e-13)
    assert n > 1 or Borel(mu).pmf(k).tolist() == BorelTanner(mu, 1).pmf(k).tolist()


def test_consuls_distribution_becomes_borels_with_many_agents() -> None:
    k = np.arange(1, 40)
    for n in (100, 10_000, 1_000_000):
        np.testing.assert_allclose(Consul(n, 0.7 / n).pmf(k), Borel(0.7).pmf(k), rtol=800 / n)


def test_one_agent_is_geometric() -> None:
    k = np.arange(1, 400)
    np.testing.assert_allclose(Consul(1, 0.7).pmf(k), 0.3 * 0.7 ** (k - 1), rtol=2e-13)
    np.testing.assert_allclose(Consul(1, 0.7).sf(k), 0.7**k, rtol=2e-13)


def test_outside_of_the_support_there_is_nothing(distribution: CountDistribution) -> None:
    start = distribution.support()[0]
    assert distribution.pmf([start - 1, 0, -3, start + 0.5, np.inf]).tolist() == [0.0] * 5
    assert distribution.logpmf(start - 1) == -np.inf
    assert np.isnan(distribution.pmf(np.nan))
    assert distribution.cdf([start - 1, -np.inf]).tolist() == [0.0, 0.0]
    assert distribution.sf(start - 1) == 1.0


def test_a_probability_below_all_doubles_has_a_logarithm() -> None:
    assert Consul(1, 0.5).logpmf(2000) == pytest.approx(2000 * np.log(0.5), rel=1e-14)


# ---- sums ----


def test_the_pmf_sums_to_the_chance_that_the_word_dies_out(distribution: CountDistribution) -> None:
    start = distribution.support()[0]
    k = np.arange(start, start + 3000)
    assert distribution.pmf(k).sum() + distribution.sf(k[-1]) == pytest.approx(1.0, abs=1e-13)
    assert distribution.cdf(np.inf) == distribution.mass
    assert distribution.sf(np.inf) == 1 - distribution.mass


@settings(deadline=None, max_examples=25)
@given(
    p=st.lists(st.floats(0.01, 0.9), min_size=2, max_size=5),
    r=st.integers(1, 6),
)
def test_for_any_agents_the_masses_add_up(p: list[float], r: int) -> None:
    distribution = TotalProgeny(p, r)
    assert distribution.mass == pytest.approx(float(extinction_probability(p)) ** r, rel=1e-13)
    assert distribution.pmf(np.arange(r, r + 400)).sum() + distribution.sf(r + 399) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "name", ["nearly critical", "different", "poisson", "different, many words", "one nearly sure"]
)
def test_far_tails_are_sums_of_the_pmf_to_the_last_digits(name: str) -> None:
    distribution = DISTRIBUTIONS[name]
    start = distribution.support()[0]
    for far in (start + 100, start + 255, start + 256, start + 1000, start + 1700):
        k = np.arange(far + 1, far + 4000)
        assert distribution.sf(far) == pytest.approx(
            distribution.pmf(k)[::-1].sum() + distribution.sf(k[-1]), rel=1e-12, abs=1e-300
        )


def test_a_critical_tail_is_right_at_any_distance() -> None:
    # P(Z = k) = C(2k, k-1) / (k 4^k), and sum_(j <= k) of it = 1 - C(2k+2, k+1) / 4^(k+1).
    distribution = Consul(2, 0.5)
    for k in (1, 10, 255, 256, 257, 5000):
        assert distribution.sf(k) == pytest.approx(float(Fraction(2 * comb(2 * k + 1, k), 4 ** (k + 1)) * 2), rel=1e-13)
    far = np.array([1e6, 1e12, 1e24, 1e50])
    # The tail is 2 (pi k)^(-1/2) (1 - 5 / (8 k) ...).
    np.testing.assert_allclose(distribution.sf(far) * np.sqrt(np.pi * far) / 2, 1 - 5 / (8 * far), rtol=1e-11)


def test_cdf_and_sf_are_one_distribution(distribution: CountDistribution) -> None:
    start = distribution.support()[0]
    k = np.concatenate([np.arange(start, start + 1200), start + np.geomspace(1200, 1e9, 50).astype(int)])
    cdf, sf = distribution.cdf(k), distribution.sf(k)
    np.testing.assert_allclose(cdf + sf, 1.0, atol=1e-13)
    assert (np.diff(cdf) >= 0).all()
    assert (np.diff(sf) <= 0).all()
    assert distribution.cdf(start + 0.99) == cdf[0]


def test_ppf_inverts_cdf_exactly(distribution: CountDistribution) -> None:
    q = np.concatenate([np.linspace(0.001, 0.999, 199), [1e-9, 1 - 1e-9, 0.5]]) * distribution.mass
    q = q[q > 0]
    k = distribution.ppf(q)
    assert (distribution.cdf(k) >= q).all()
    told_apart = k < 1e12  # further out cdf(k) and cdf(k - 1) of a critical distribution are one number
    assert (distribution.cdf(k[told_apart] - 1) < q[told_apart]).all()
    assert told_apart[:-2].all()
    assert distribution.ppf(0) == distribution.support()[0] - 1
    assert np.isnan(distribution.ppf([-0.1, 1.1, np.nan])).all()
    assert distribution.ppf(1) == distribution.support()[1]


def test_ppf_of_a_word_that_may_never_die_out_is_infinite_from_its_mass_on() -> None:
    distribution = Consul(2, 0.75)
    assert distribution.mass == pytest.approx(1 / 9, rel=1e-14)
    assert distribution.ppf([0.5, 1.0]).tolist() == [np.inf, np.inf]
    assert np.isfinite(distribution.ppf(0.111))


# ---- moments and samples ----


def test_two_agents_have_variance_495_where_the_poisson_limit_says_900() -> None:
    distribution = Consul(2, 0.45)
    assert distribution.mean() == pytest.approx(10, rel=1e-14)
    assert distribution.var() == pytest.approx(495, rel=1e-13)
    assert distribution.std() == pytest.approx(np.sqrt(495), rel=1e-13)
    assert Borel(0.9).var() == pytest.approx(900, rel=1e-13)


@pytest.mark.parametrize("name", ["few agents", "geometric", "poisson", "different", "different, many words"])
def test_moments_are_those_of_the_pmf(name: str) -> None:
    distribution = DISTRIBUTIONS[name]
    k = distribution.support()[0] + np.arange(20_000)
    mean = (k * distribution.pmf(k)).sum()
    assert distribution.mean() == pytest.approx(mean, rel=1e-12)
    assert distribution.var() == pytest.approx(((k - mean) ** 2 * distribution.pmf(k)).sum(), rel=1e-11)


@pytest.mark.parametrize("name", ["critical", "supercritical", "different, critical", "poisson, supercritical"])
def test_moments_of_a_distribution_without_an_end_are_infinite(name: str) -> None:
    assert DISTRIBUTIONS[name].mean() == np.inf
    assert DISTRIBUTIONS[name].var() == np.inf


@pytest.mark.parametrize("name", ["few agents", "critical", "different", "different, supercritical", "poisson"])
def test_samples_have_the_distribution_also_far_out(name: str) -> None:
    distribution, n = DISTRIBUTIONS[name], 40_000
    samples = distribution.rvs(n, random_state=5)
    # The median and three points ever further out: each a binomial count, within 4.5 standard errors.
    for q in (0.3, 0.7, 0.95, 0.998):
        k = distribution.ppf(q * distribution.mass)
        chance = distribution.sf(k)
        assert abs((samples > k).mean() - chance) < 4.5 * np.sqrt(chance * (1 - chance) / n)


def test_samples_of_a_distribution_without_an_end_say_so() -> None:
    samples = Consul(2, 0.75).rvs((100, 100), random_state=0)
    assert samples.shape == (100, 100)
    assert samples.dtype == np.float64
    assert abs(np.isinf(samples).mean() - 8 / 9) < 4 * np.sqrt(8 / 81 / 10_000)
    assert np.isinf(Consul(1, 1.0).rvs(5)).all()


def test_samples_are_whole_numbers_with_a_seed() -> None:
    distribution = DISTRIBUTIONS["different"]
    assert distribution.rvs(3, random_state=1).dtype == np.int64
    assert (
        distribution.rvs(9, random_state=1).tolist()
        == distribution.rvs(9, random_state=np.random.default_rng(1)).tolist()
    )
    assert np.ndim(distribution.rvs(random_state=1)) == 0
    assert Consul(3, 0.0).rvs(4).tolist() == [1, 1, 1, 1]


def test_ten_thousand_samples_of_a_critical_distribution_reach_where_no_simulation_would() -> None:
    # P(Z > 1e7) = 3.6e-4 for two agents: 36 of 100,000 samples.
    beyond = (Consul(2, 0.5).rvs(100_000, random_state=3) > 1e7).sum()
    expected = 100_000 * Consul(2, 0.5).sf(1e7)
    assert expected == pytest.approx(100_000 * 2 / np.sqrt(np.pi * 1e7), rel=1e-6)
    assert abs(beyond - expected) < 4.5 * np.sqrt(expected)


# ---- extremes ----


def test_words_that_nobody_repeats_are_sent_once() -> None:
    distribution = TotalProgeny([0.0, 0.0], 3)
    assert distribution.pmf([2, 3, 4]).tolist() == [0.0, 1.0, 0.0]
    assert (distribution.mean(), distribution.var(), distribution.support()) == (3.0, 0.0, (3, 3))
    assert distribution.ppf([0.2, 1.0]).tolist() == [3.0, 3.0]


def test_a_sure_repeat_has_no_finite_number_of_transmissions() -> None:
    distribution = TotalProgeny([1.0, 0.2])
    assert distribution.mass == 0.0
    assert distribution.pmf(np.arange(20)).sum() == 0.0
    assert distribution.sf(10**9) == 1.0
    assert distribution.ppf(0.01) == np.inf


def test_many_words_have_a_distribution_around_their_mean() -> None:
    distribution = TotalProgeny([0.1, 0.2, 0.3], 100_000)
    assert distribution.ppf([0.0228, 0.9772]) == pytest.approx(
        [distribution.mean() - 2 * distribution.std(), distribution.mean() + 2 * distribution.std()], rel=3e-5
    )


def test_a_tail_that_never_becomes_smooth_is_refused() -> None:
    with pytest.raises(UserError, match="one agent, which repeats nearly always"):
        TotalProgeny([1 - 1e-9, 1e-12]).sf(10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Borel(-0.5), "mu is -0.5"),
        (lambda: BorelTanner(0.5, 0), "n is 0"),
        (lambda: Consul(2, 1.5), "p is 1.5, and must be between 0 and 1"),
        (lambda: Consul(2.5, 0.1), "n is 2.5"),
        (lambda: TotalProgeny([0.5, float("nan")]), r"p\[1\] is nan"),
        (lambda: TotalProgeny([[0.5]]), r"p has shape \(1, 1\)"),
        (lambda: TotalProgeny([0.5], 0), "ancestors is 0"),
    ],
)
def test_parameters_that_are_none_are_refused(make, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=said):
        make()


def test_rationals_of_the_tests_agree_with_one_another() -> None:
    p = [Fraction(1, 4), Fraction(1, 2)]
    assert [otter_dwass(p, k, 1) for k in range(1, 7)] == trees(p, 6)[1:]
    assert prod(offspring(p)) == Fraction(3, 8) * Fraction(1, 2) * Fraction(1, 8)
