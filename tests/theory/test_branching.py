"""Extinction and survival where all hear all: solved on paper, exact rationals, and what holds for every p."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product
from math import comb, prod

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.theory import (
    alive_probability,
    extinction_probability,
    offspring_moments,
    offspring_pmf,
    word_count,
    word_probability,
)
from popcomm.theory.deviance import deviance, log_binomial, log_poisson, stirling_error

PROBABILITIES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


def decimal_survival(p: list[float]) -> Decimal:
    """1 - e by Newton on d = 1 - prod(1 - p_i d) with 60 digits, from d = 1; p supercritical, without a 1."""
    with localcontext() as context:
        context.prec = 60
        exact = [Decimal(q) for q in p]
        d = Decimal(1)
        for _ in range(1000):
            none = Decimal(1)
            for q in exact:
                none *= 1 - q * d
            slope = none * sum((q / (1 - q * d) for q in exact), Decimal(0))
            step = (d - (1 - none)) / (1 - slope)
            d -= step
            if abs(step) < Decimal("1e-45"):
                return d
    raise AssertionError("Newton's iterates did not arrive")


# ---- words ----


def test_the_default_gate_lets_one_word_in_a_hundred_through() -> None:
    assert word_count(32, 7, 9) == 41_932_956
    assert word_probability(32, 7, 9) == 41_932_956 / 2**32


@pytest.mark.parametrize("q", [0.0, 0.03, 0.25, 0.5, 0.9, 1.0])
def test_biased_bits_pass_as_the_binomial_distribution_says(q: float) -> None:
    exact = sum(comb(12, i) * Fraction(q) ** i * (1 - Fraction(q)) ** (12 - i) for i in range(3, 6))
    assert word_probability(12, 3, 5, q) == pytest.approx(float(exact), rel=1e-14)


def test_the_most_talkative_bits_are_on_a_quarter_of_the_time() -> None:
    shares = np.linspace(0.01, 0.99, 99)
    rates = [word_probability(32, 7, 9, q) for q in shares]
    assert shares[np.argmax(rates)] == pytest.approx(0.25)
    assert max(rates) == pytest.approx(0.459, abs=5e-4)


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_bit_probability_outside_of_0_and_1_is_refused(q: float) -> None:
    with pytest.raises(UserError, match=r"bit_probability is .* between 0 and 1"):
        word_probability(32, 7, 9, q)


# ---- the offspring ----


def test_offspring_of_three_agents_by_enumeration() -> None:
    p = [Fraction(1, 4), Fraction(1, 2), Fraction(7, 8)]
    exact = [Fraction(0)] * 4
    for repeats in product((0, 1), repeat=3):
        exact[sum(repeats)] += prod(q if r else 1 - q for q, r in zip(p, repeats, strict=True))
    assert offspring_pmf([float(q) for q in p]).tolist() == [float(v) for v in exact]


def test_offspring_of_equal_agents_are_binomial_to_the_last_digits_of_the_tail() -> None:
    distribution = offspring_pmf(np.full((2, 40), 0.01))
    exact = [float(comb(40, x) * Fraction(0.01) ** x * (1 - Fraction(0.01)) ** (40 - x)) for x in range(41)]
    np.testing.assert_allclose(distribution, [exact, exact], rtol=1e-13)


def test_moments_are_those_of_the_distribution() -> None:
    p = np.random.default_rng(0).random((3, 2, 7))
    distribution, x = offspring_pmf(p), np.arange(8)
    m, s2 = offspring_moments(p)
    np.testing.assert_allclose(m, distribution @ x, rtol=1e-13)
    np.testing.assert_allclose(s2, distribution @ x**2 - m**2, rtol=1e-12)


# ---- extinction ----


@pytest.mark.parametrize("p", [[0.0], [0.3], [0.999], [0.2, 0.8], [0.5, 0.5], [0.1] * 10, [1 / 3] * 3, [0.0, 0.0]])
def test_a_word_dies_out_surely_up_to_a_mean_of_1(p: list[float]) -> None:
    assert extinction_probability(p) == 1.0


@pytest.mark.parametrize("p", [[1.0], [1.0, 0.0, 0.0], [1.0, 1e-30], [1.0, 0.7], [1.0, 1.0]])
def test_a_sure_repeat_never_ends(p: list[float]) -> None:
    assert extinction_probability(p) == 0.0


@pytest.mark.parametrize("p", [0.5000001, 0.6, 0.9, 0.999])
def test_two_equal_agents_solved_on_paper(p: float) -> None:
    # s = (1 - p + p s)^2 has the roots 1 and ((1 - p) / p)^2.
    assert extinction_probability([p, p]) == pytest.approx(((1 - p) / p) ** 2, rel=1e-13)


def test_two_different_agents_solved_on_paper() -> None:
    # 1 - G(1 - d) = (p + q) d - p q d^2, so that d = (p + q - 1) / (p q).
    assert extinction_probability([0.75, 0.5]) == pytest.approx(1 - 0.25 / 0.375, rel=1e-14)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-12, 1e-14])
@pytest.mark.parametrize("rest", [[0.5], [0.25, 0.125, 0.125], [0.0625] * 8])
def test_close_above_criticality_the_digits_are_right(distance: float, rest: list[float]) -> None:
    p = [0.5 + distance, *rest]
    survival = decimal_survival(p)
    assert abs(Decimal(float(extinction_probability(p))) - (1 - survival)) < Decimal("2e-16")
    # And they are those of d = 2 (m - 1) / G''(1), the first order.
    second = sum(p) ** 2 - sum(q * q for q in p)
    assert float(survival) == pytest.approx(2 * (sum(p) - 1) / second, rel=4 * distance + 4e-16 / distance)


def test_nearly_sure_repeats_of_one_agent_are_no_trap() -> None:
    p = [1 - 1e-10, 2e-10]
    assert extinction_probability(p) == pytest.approx(1 - float(decimal_survival(p)), abs=1e-12)


def test_an_extinction_that_is_hardly_possible_has_its_digits() -> None:
    # e = G(e) = 1e-24 (1 + O(1e-21)) for twelve agents that repeat 99 times in 100.
    assert extinction_probability([0.99] * 12) == pytest.approx((1 - 0.99) ** 12, rel=1e-13)


@settings(deadline=None, max_examples=200)
@given(p=PROBABILITIES)
def test_extinction_is_a_fixed_point_and_the_least(p: list[float]) -> None:
    e = float(extinction_probability(p))
    assert 0.0 <= e <= 1.0
    assert prod(1 - q + q * e for q in p) == pytest.approx(e, abs=1e-14)
    # Iterates of G from 0 rise to the least fixed point, and never above it.
    assert 1 - float(alive_probability(p, 300)) <= e + 1e-14
    if e < 1 - 1e-9:
        assert sum(p) >= 1


def test_a_batch_is_its_rows() -> None:
    p = np.random.default_rng(1).random((4, 5, 6)) * 0.5
    p[0, 0] = [1, 0, 0, 0, 0, 0]
    p[0, 1] = 0.125
    result = extinction_probability(p)
    assert result.shape == (4, 5)
    assert result.dtype == np.float64
    assert result.ravel().tolist() == [float(extinction_probability(row)) for row in p.reshape(-1, 6)]


def test_batches_larger_than_a_chunk_keep_their_order() -> None:
    p = np.full((30_000, 2), 0.4)
    p[::7] = 0.75
    np.testing.assert_allclose(extinction_probability(p), np.where(np.arange(30_000) % 7, 1.0, 1 / 9), rtol=1e-14)


@pytest.mark.parametrize("call", [extinction_probability, offspring_pmf, lambda p: alive_probability(p, 3)])
@pytest.mark.parametrize(
    ("p", "said"),
    [
        ([0.5, 1.5], r"p\[1\] is 1.5, and a probability is between 0 and 1"),
        ([[0.5], [-0.1]], r"p\[1, 0\] is -0.1"),
        ([float("nan")], r"p\[0\] is nan"),
        ([], r"p has shape \(0,\)"),
        (0.5, r"p has shape \(\)"),
        (["a"], "must be numbers"),
    ],
)
def test_what_is_no_probability_is_refused_in_words(call, p, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=said):
        call(p)


# ---- survival ----


def test_survival_by_exact_rationals() -> None:
    p = [Fraction(1, 4), Fraction(3, 8), Fraction(1, 2)]
    e, exact = Fraction(0), []
    for _ in range(7):
        exact.append(float(1 - e))
        e = prod(1 - q + q * e for q in p)
    np.testing.assert_allclose(alive_probability([float(q) for q in p], np.arange(7)), exact, rtol=1e-15)


def test_one_agent_keeps_a_word_alive_geometrically_and_keeps_the_digits() -> None:
    assert alive_probability([0.5], 1000) == 0.5**1000


def test_a_critical_word_survives_as_kolmogorov_says() -> None:
    # P(alive at t) ~ 2 / (s2 t) (Kolmogorov 1938); the next term is of order log(t) / t.
    assert alive_probability([0.5, 0.5], 100_000) * 100_000 * 0.5 / 2 == pytest.approx(1.0, abs=1e-3)


def test_a_supercritical_word_survives_with_what_extinction_leaves() -> None:
    assert alive_probability([0.6, 0.6], 10_000_000) == pytest.approx(1 - 4 / 9, rel=1e-14)


def test_generations_may_be_an_array_in_any_order() -> None:
    p = np.array([[0.5, 0.25], [0.75, 0.75], [1.0, 0.0]])
    result = alive_probability(p, [[3, 0], [1, 3]])
    assert result.shape == (3, 2, 2)
    for g, column in zip((3, 0, 1, 3), result.reshape(3, 4).T, strict=True):
        assert column.tolist() == alive_probability(p, g).tolist()
    assert result[:, 0, 1].tolist() == [1.0, 1.0, 1.0]
    assert result[2].tolist() == [[1.0, 1.0], [1.0, 1.0]]


@settings(deadline=None, max_examples=100)
@given(p=PROBABILITIES)
@example(p=[0.0, 0.96875, 0.0, 0.71875, 0.453125, 0.16692025815835268, 0.0, 0.75])  # rounding lifted it by a digit
def test_survival_only_falls(p: list[float]) -> None:
    alive = alive_probability(p, np.arange(40))
    assert (np.diff(alive) <= 2e-16).all()
    assert alive[-1] >= 1 - extinction_probability(p) - 1e-14


@pytest.mark.parametrize("generations", [-1, 1.5, [0, -2], "two"])
def test_generations_that_are_no_count_are_refused(generations: object) -> None:
    with pytest.raises(UserError, match=r"generations is .* whole number"):
        alive_probability([0.5], generations)


# ---- what the distributions are made of ----


def test_the_deviance_keeps_its_digits_near_0() -> None:
    with localcontext() as context:
        context.prec = 50
        for x in (-1 + 1e-9, -0.7, -0.3, -1e-5, 1e-9, 0.01, 0.499, 0.501, 3.0, 1e6):
            d = Decimal(x)
            assert float(deviance(np.array(x))) == pytest.approx(float((1 + d) * (1 + d).ln() - d), rel=5e-15)
    assert deviance(np.array(-1.0)) == 1.0
    assert deviance(np.array(0.0)) == 0.0


@pytest.mark.parametrize("n", [1, 5, 15, 16, 40, 1000])
def test_stirlings_error_is_what_the_factorial_has_more(n: int) -> None:
    with localcontext() as context:
        context.prec = 60
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582")
        exact = Decimal(prod(range(1, n + 1))).ln() - (Decimal(n) + Decimal("0.5")) * Decimal(n).ln() + n
        assert float(stirling_error(np.array(float(n)))) == pytest.approx(float(exact - (2 * pi).ln() / 2), abs=4e-15)


@pytest.mark.parametrize(("j", "trials"), [(0, 4), (1, 4), (3, 4), (700, 20_000), (900, 20_000)])
def test_a_binomial_probability_by_rationals(j: int, trials: int) -> None:
    p = Fraction(1, 25)
    exact = comb(trials, j) * p**j * (1 - p) ** (trials - j)
    gap = np.array(float(j - trials * p))
    log = log_binomial(np.array(float(j)), np.array(float(trials)), 0.04, gap)
    assert np.exp(log) == pytest.approx(float(exact), rel=2e-13)


@pytest.mark.parametrize("j", [0, 1, 30, 400])
def test_a_poisson_probability_by_decimals(j: int) -> None:
    with localcontext() as context:
        context.prec = 60
        exact = (-Decimal(40)).exp() * Decimal(40) ** j / prod(range(1, j + 1))
    log = log_poisson(np.array(float(j)), np.array(40.0), np.array(j - 40.0))
    assert np.exp(log) == pytest.approx(float(exact), rel=2e-13)
