"""The load of a channel in balance: closed forms, the exact generating function, and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from popcomm.errors import UserError
from popcomm.theory import load_by_type, next_generation_matrix, stationary_load


def matrix_distribution(rate: float, p: np.ndarray, size: int) -> np.ndarray:
    """The stationary distribution of the load, cut at `size`, as the left eigenvector of its transition matrix."""
    fresh = stats.poisson.pmf(np.arange(size), rate)
    one = np.ones(1)
    for q in p:
        one = np.convolve(one, [1 - q, q])
    repeats, rows = np.ones(1), []
    for _ in range(size):
        rows.append(np.convolve(repeats, fresh)[:size])
        repeats = np.convolve(repeats, one)[:size]
    distribution = np.eye(size)[0]
    for _ in range(400):
        distribution = distribution @ np.array(rows)
    return distribution


def simulated(rate: np.ndarray, M: np.ndarray, worlds: int, steps: int, seed: int) -> np.ndarray:
    """Loads by source [worlds, N] after `steps` from silence."""
    rng = np.random.default_rng(seed)
    now = np.zeros((worlds, len(M)), dtype=np.int64)
    for _ in range(steps):
        now = rng.binomial(now[:, :, None], M).sum(1) + rng.poisson(rate, now.shape)
    return now


# ---- all hear all ----


def test_without_repeats_the_load_is_what_is_new() -> None:
    load = stationary_load(7.5, [0.0, 0.0])
    k = np.arange(60)
    np.testing.assert_allclose(load.pmf(k), stats.poisson.pmf(k, 7.5), atol=1e-15)
    assert (load.mean, load.var) == (7.5, 7.5)


@pytest.mark.parametrize("p", [0.2, 0.9, 0.9999])
def test_with_one_agent_the_load_is_poisson_again(p: float) -> None:
    # Thinning keeps a Poisson number Poisson: mean rate (1 + p + p^2 + ...).
    load = stationary_load(0.5, [p])
    k = np.arange(0, int(load.mean + 12 * load.mean**0.5) + 10)
    np.testing.assert_allclose(load.pmf(k), stats.poisson.pmf(k, 0.5 / (1 - p)), atol=1e-14)


@pytest.mark.parametrize("p", [[0.2, 0.5], [0.3, 0.1, 0.25, 0.1], [0.05] * 10])
def test_the_distribution_is_the_chains_own(p: list[float]) -> None:
    load = stationary_load(1.5, p)
    np.testing.assert_allclose(
        load.pmf(np.arange(90)), matrix_distribution(1.5, np.array(p), 90), rtol=1e-10, atol=1e-14
    )


def test_the_smallest_case_on_paper() -> None:
    # P(load = 0) = exp(-rate sum of survivals) for a load that started long ago: with one agent, exp(-rate / (1 - p)).
    assert stationary_load(0.25, [0.5]).pmf(0) == pytest.approx(np.exp(-0.5), rel=1e-14)


@pytest.mark.parametrize(
    ("rate", "p"),
    [
        (10.0, [0.05] * 10),
        (3.0, [0.1, 0.2, 0.3]),
        (1e-3, [0.5]),
        (1e-3, [0.095] * 10),
        (1e5, [0.095] * 10),
        (20.0, [0.33] * 3),
        (1e6, [0.5]),
        (100.0, [9e-4] * 1000),
    ],
)
def test_mean_and_variance_are_those_of_the_exact_distribution(rate: float, p: list[float]) -> None:
    load = stationary_load(rate, p)
    m, s2 = sum(p), sum(q * (1 - q) for q in p)
    assert load.mean == pytest.approx(rate / (1 - m), rel=1e-12)
    assert load.var == pytest.approx((s2 * load.mean + rate) / (1 - m * m), rel=1e-12)
    reach = 40 * np.sqrt(load.var) + 3000
    k = np.arange(max(0, int(load.mean - reach)), int(load.mean + reach))
    distribution = load.pmf(k)
    assert distribution.sum() == pytest.approx(1.0, abs=1e-12)
    assert (distribution * (k - load.mean)).sum() == pytest.approx(0.0, abs=1e-9 * np.sqrt(load.var))
    assert (distribution * (k - load.mean) ** 2).sum() == pytest.approx(load.var, rel=1e-8)


@settings(deadline=None, max_examples=40)
@given(
    rate=st.floats(0.01, 50.0),
    p=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6),
    target=st.floats(0.0, 0.9),
    loss=st.floats(1e-9, 0.5),
)
def test_the_capacity_is_the_least_that_loses_less(rate: float, p: list[float], target: float, loss: float) -> None:
    load = stationary_load(rate, np.array(p) * min(1.0, target / max(sum(p), 1e-9)))
    k = load.capacity(loss)
    assert load.sf(k) < loss
    assert k == 0 or load.sf(k - 1) >= loss
    assert load.sf(k) + load.cdf(k) == pytest.approx(1.0, abs=1e-15)


def test_a_normal_guess_would_lose_too_many_words() -> None:
    load = stationary_load(1.0, [0.45, 0.45])
    guess = load.mean + stats.norm.isf(1e-4) * np.sqrt(load.var)
    assert load.sf(guess) > 10 * 1e-4
    assert load.sf(load.capacity(1e-4)) < 1e-4


def test_a_silent_channel_needs_no_capacity() -> None:
    load = stationary_load(0.0, [0.5])
    assert (load.mean, load.var, load.capacity(1e-6)) == (0.0, 0.0, 0)
    assert load.pmf([0, 1, -1, 0.5]).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert load.sf([-1, 0]).tolist() == [1.0, 0.0]


def test_the_load_of_a_simulated_channel() -> None:
    p, n = np.array([0.1, 0.3, 0.2]), 20_000
    load = stationary_load(2.0, p)
    totals = simulated(np.array([2.0, 0, 0]), np.tile(p, (3, 1)), n, 60, seed=0).sum(1)
    assert abs(totals.mean() - load.mean) < 4.5 * np.sqrt(load.var / n)
    k = load.capacity(0.01)
    assert abs((totals > k).mean() - load.sf(k)) < 4.5 * np.sqrt(0.01 / n)


@pytest.mark.parametrize(
    ("rate", "p", "said"),
    [
        (1.0, [0.5, 0.5], "p sums to R = 1, and must stay below 1: .* the load grows without end"),
        (1.0, [0.9, 0.9], "R = 1.8"),
        (-1.0, [0.5], "rate is -1.0"),
        (float("nan"), [0.5], "rate is nan"),
        (1.0, [[0.5]], r"p has shape \(1, 1\)"),
        (1e12, [0.5], "makes a load of 2e"),
    ],
)
def test_a_load_without_end_is_refused_with_the_reason(rate: float, p: list[float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        stationary_load(rate, p)


@pytest.mark.parametrize("loss", [0.0, 1e-12, 1.5, float("nan")])
def test_a_loss_that_is_no_loss_is_refused(loss: float) -> None:
    with pytest.raises(UserError, match="loss is"):
        stationary_load(1.0, [0.5]).capacity(loss)


# ---- by source ----


def test_on_a_full_graph_the_sum_is_the_load_of_one_type() -> None:
    p = np.array([0.1, 0.2, 0.05, 0.3])
    whole = stationary_load(4.0, p)
    load = load_by_type([1.0, 2.0, 0.5, 0.5], next_generation_matrix(np.ones((4, 4)), p))
    assert load.total_mean == pytest.approx(whole.mean, rel=1e-13)
    assert load.total_var == pytest.approx(whole.var, rel=1e-12)
    # By source: new words, and p_j of all that is heard.
    np.testing.assert_allclose(load.mean, [1.0, 2.0, 0.5, 0.5] + p * whole.mean, rtol=1e-13)


def test_mean_and_covariance_of_a_chain_on_paper() -> None:
    # 1 repeats half of what 0 says: Poisson(2), and Poisson(1) one step later, independent in the same step.
    load = load_by_type([2.0, 0.0], [[0, 0.5], [0, 0]])
    np.testing.assert_allclose(load.mean, [2.0, 1.0], rtol=1e-14)
    np.testing.assert_allclose(load.covariance, [[2.0, 0.0], [0.0, 1.0]], atol=1e-14)


def test_the_covariance_of_a_simulated_graph() -> None:
    rate = np.array([1.0, 0.0, 0.3])
    M = np.array([[0.2, 0.7, 0.0], [0.5, 0.1, 0.4], [0.0, 0.3, 0.2]])
    load, n = load_by_type(rate, M), 20_000
    loads = simulated(rate, M, n, 150, seed=1)
    assert (np.abs(loads.mean(0) - load.mean) < 4.5 * np.sqrt(np.diagonal(load.covariance) / n)).all()
    off = loads - load.mean
    products = off[:, :, None] * off[:, None, :]
    assert (np.abs(products.mean(0) - load.covariance) < 4.5 * products.std(0) / np.sqrt(n)).all()
    hears = np.array([[1, 0.5, 0], [1, 0, 1], [0, 0.25, 1]])
    heard = np.random.default_rng(3).binomial(loads[:, :, None], hears).sum(1)
    mean, var = load.heard(hears)
    assert (np.abs(heard.mean(0) - mean) < 4.5 * np.sqrt(var / n)).all()
    assert (np.abs(heard.var(0) / var - 1) < 0.06).all()


def test_the_bound_is_sure_and_not_far_off() -> None:
    p = np.full(10, 0.05)
    exact = stationary_load(10.0, p)
    load = load_by_type(np.ones(10), next_generation_matrix(np.ones((10, 10)), p))
    for loss in (0.1, 1e-3, 1e-6):
        k = load.capacity(loss)
        assert exact.capacity(loss) <= k
        assert exact.sf(k) > loss / 30


def test_what_an_agent_hears_is_bounded_by_what_it_can_hear() -> None:
    # Two agents that hear only themselves: each hears Poisson(rate / (1 - p)).
    load = load_by_type([1.0, 4.0], np.diag([0.5, 0.25]))
    for heard, mean in (([1.0, 0.0], 2.0), ([0.0, 1.0], 16 / 3), ([1.0, 1.0], 22 / 3), ([0.0, 0.5], 8 / 3)):
        k = load.capacity(1e-3, heard)
        assert stats.poisson.sf(k, mean) < 1e-3
        assert stats.poisson.sf(k, mean) > 1e-3 / 30
    assert load.capacity(1e-3, [0.0, 0.0]) == 0


@pytest.mark.parametrize(
    ("rate", "M", "said"),
    [
        ([1.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "M has R = 1, and must stay below 1"),
        ([1.0], [[0.5, 0.5], [0.5, 0.1]], r"rate has shape \(1,\) and M \(2, 2\)"),
        ([1.0, -1.0], [[0.5, 0], [0, 0]], "rate is .* numbers of at least 0"),
    ],
)
def test_rates_and_matrices_that_do_not_do_are_refused(rate, M, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=said):
        load_by_type(rate, M)
