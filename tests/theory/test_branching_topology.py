"""Extinction, progeny and rules where agents hear different agents: graphs worked by hand, and the case of one type."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.theory import (
    TotalProgeny,
    alive_by_type,
    alive_probability,
    extinction_by_type,
    extinction_probability,
    local_rule,
    next_generation_matrix,
    progeny_moments,
    repetition_threshold,
    spectral_radius,
)


def ring(n: int) -> np.ndarray:
    """Everybody hears itself and its two neighbours."""
    return np.eye(n) + np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0)


def star(n: int) -> np.ndarray:
    """Agent 0 hears all and is heard by all; everybody hears itself."""
    hears = np.eye(n)
    hears[0] = hears[:, 0] = 1.0
    return hears


GRAPHS = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.booleans(), min_size=n * n, max_size=n * n).map(
        lambda bits: np.array(bits, dtype=float).reshape(n, n)
    )
)


# ---- matrices ----


def test_who_hears_decides_whether_to_repeat() -> None:
    # 1 hears 0, and repeats one word in four: only M[0, 1] is not zero.
    assert next_generation_matrix([[0, 1], [0, 0]], [0.5, 0.25]).tolist() == [[0.0, 0.25], [0.0, 0.0]]
    assert next_generation_matrix(np.ones((3, 2, 2), dtype=bool), [[0.1, 0.2]] * 3).shape == (3, 2, 2)


def test_the_radius_of_a_full_graph_is_the_sum_of_all_p() -> None:
    p = np.array([0.1, 0.7, 0.05])
    assert spectral_radius(next_generation_matrix(np.ones((3, 3)), p)) == pytest.approx(0.85, rel=1e-14)


def test_a_graph_without_cycles_has_radius_0_exactly() -> None:
    order = np.random.default_rng(0).permutation(30)
    assert spectral_radius(np.triu(np.ones((30, 30)), 1)[np.ix_(order, order)]) == 0.0


def test_a_cycle_repeats_as_often_as_the_mean_of_its_links() -> None:
    # a, b, c around: the eigenvalues are the cube roots of a b c.
    assert spectral_radius([[0, 0.5, 0], [0, 0, 0.25], [1.0, 0, 0]]) == pytest.approx(0.5, rel=1e-14)


def test_a_batch_of_graphs_is_its_graphs() -> None:
    M = np.random.default_rng(0).random((2, 3, 4, 4)) * 0.6
    for function in (spectral_radius, extinction_by_type, lambda m: progeny_moments(m)[1]):
        whole = function(M)
        for b in np.ndindex(2, 3):
            assert whole[b].tolist() == function(M[b]).tolist()


# ---- thresholds and rules ----


def test_known_thresholds() -> None:
    assert repetition_threshold(ring(20)) == pytest.approx(1 / 3, rel=1e-13)
    assert repetition_threshold(star(100)) == pytest.approx(1 / (1 + np.sqrt(99)), rel=1e-13)
    assert repetition_threshold(star(100)) == pytest.approx(0.0913, abs=5e-5)
    assert repetition_threshold(np.ones((12, 12))) == pytest.approx(1 / 12, rel=1e-13)
    assert repetition_threshold(np.ones((12, 12)) - np.eye(12)) == pytest.approx(1 / 11, rel=1e-13)
    assert repetition_threshold(np.eye(3)) == 1.0


def test_without_cycles_any_p_will_do() -> None:
    assert repetition_threshold([[0, 1, 1], [0, 0, 1], [0, 0, 0]]) == np.inf
    assert repetition_threshold([ring(5), np.zeros((5, 5))]).tolist() == [pytest.approx(1 / 3), np.inf]


@settings(deadline=None, max_examples=150)
@given(hears=GRAPHS, share=st.floats(0.01, 1.0))
def test_the_local_rule_has_its_target_on_any_graph_in_which_all_hear(hears: np.ndarray, share: float) -> None:
    deaf = hears.sum(0) == 0
    hears[deaf, deaf] = 1.0
    target = share * hears.sum(0).min()
    M = next_generation_matrix(hears, local_rule(hears, target))
    np.testing.assert_allclose(M.sum(0), target, rtol=1e-13)
    assert spectral_radius(M) == pytest.approx(target, rel=1e-6)  # a defective eigenvalue has half the digits


def test_the_local_rule_by_hand() -> None:
    # Agent 0 hears all three, agent 1 hears 0 only, agent 2 hears nobody.
    assert local_rule([[1, 1, 0], [1, 0, 0], [1, 0, 0]], 0.75).tolist() == [0.25, 0.75, 0.0]
    assert local_rule([ring(6), np.ones((6, 6))], 0.5).tolist() == [[0.5 / 3] * 6, [0.5 / 6] * 6]


def test_a_p_above_1_is_refused_not_cut() -> None:
    with pytest.raises(UserError, match=r"target is 1.5, and agent 1 hears 1 agents: .* probability 1.5; at most"):
        local_rule([[1, 1], [1, 0]], 1.5)
    assert local_rule(np.ones((4, 4)), 4.0).tolist() == [1.0] * 4


# ---- extinction ----


@pytest.mark.parametrize("m", [0.9, 1.0, 1 + 1e-9, 1 + 1e-6, 1.3, 2.9])
def test_agents_that_are_alike_are_one_type(m: float) -> None:
    p = np.full(3, m / 3)
    M = next_generation_matrix(np.ones((3, 3)), p)
    np.testing.assert_allclose(extinction_by_type(M), np.full(3, extinction_probability(p)), atol=1e-14)
    np.testing.assert_allclose(
        alive_by_type(M, [0, 1, 9]), np.tile(alive_probability(p, [0, 1, 9]), (3, 1)), rtol=1e-14
    )


def test_two_types_solved_on_paper() -> None:
    # 0 is repeated by 1 alone and 1 by both: e_0 = 1 - a + a e_1 and e_1 = (1 - b + b e_0)(1 - c + c e_1), where
    # d_0 = a d_1, and d_1 = b a d_1 + c d_1 - b c a d_1^2 gives d_1 = (a b + c - 1) / (a b c).
    a, b, c = 0.75, 0.5, 0.875
    d = (a * b + c - 1) / (a * b * c)
    np.testing.assert_allclose(extinction_by_type([[0, a], [b, c]]), [1 - a * d, 1 - d], rtol=1e-13)


def test_classes_are_judged_one_by_one() -> None:
    # 0 and 1 keep words alive, 2 reaches them, 3 is reached by them and reaches nobody.
    M = np.array([[0.9, 0.9, 0, 0.4], [0.9, 0.9, 0, 0], [0.2, 0, 0.5, 0], [0, 0, 0, 0.7]])
    e = extinction_by_type(M)
    pair = extinction_probability([0.9, 0.9])
    assert e[0] == pytest.approx(pair, rel=1e-13)
    assert e[1] == pytest.approx(pair, rel=1e-13)
    assert e[3] == 1.0
    # e_2 = (1 - 0.2 + 0.2 e_0)(1 - 0.5 + 0.5 e_2).
    head = 1 - 0.2 * (1 - e[0])
    assert e[2] == pytest.approx(0.5 * head / (1 - 0.5 * head), rel=1e-13)
    assert progeny_moments(M)[0].tolist() == [np.inf, np.inf, np.inf, pytest.approx(1 / 0.3)]


def test_critical_classes_die_out_even_in_a_row() -> None:
    # Two critical pairs, the second started by the first.
    M = np.kron(np.eye(2), np.full((2, 2), 0.5))
    M[0, 2] = 0.5
    assert extinction_by_type(M).tolist() == [1.0] * 4
    assert np.isinf(progeny_moments(M)).all()


def test_sure_repeats_around_a_cycle_never_end() -> None:
    # 0 and 1 repeat one another surely (radius 1, no extinction); 2 starts them half of the time; 3 stands alone.
    M = np.array([[0, 1, 0, 0.1], [1, 0, 0, 0], [0.5, 0, 0.3, 0], [0, 0, 0, 0.9]])
    assert extinction_by_type(M).tolist() == [0.0, 0.0, pytest.approx(0.5 * 0.7 / (1 - 0.5 * 0.3)), 1.0]


def test_a_sure_repeat_that_leads_nowhere_ends() -> None:
    assert extinction_by_type([[0, 1.0], [0, 0]]).tolist() == [1.0, 1.0]
    assert extinction_by_type([[1.0]]).tolist() == [0.0]


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 7), scale=st.floats(0.05, 1.0))
def test_extinction_by_type_is_the_least_fixed_point(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    M = rng.random((n, n)) * (rng.random((n, n)) < 0.5) * scale
    e = extinction_by_type(M)
    np.testing.assert_allclose(np.prod(1 - M + M * e, 1), e, atol=1e-13)
    alive = alive_by_type(M, [200, 2000])
    assert (1 - alive[:, 0] <= e + 1e-13).all()
    if abs(spectral_radius(M) - 1) > 0.05:
        np.testing.assert_allclose(1 - alive[:, 1], e, atol=1e-8)


def test_a_word_travels_along_a_chain_and_ends() -> None:
    M = np.diag([0.5, 0.25], 1)
    assert alive_by_type(M, [0, 1, 2, 3]).tolist() == [[1, 0.5, 0.125, 0], [1, 0.25, 0, 0], [1, 0, 0, 0]]


# ---- progeny ----


def test_moments_of_agents_that_hear_all_are_those_of_one_type() -> None:
    p = np.array([0.1, 0.3, 0.25, 0.05])
    mean, var = progeny_moments(next_generation_matrix(np.ones((4, 4)), p))
    distribution = TotalProgeny(p)
    np.testing.assert_allclose(mean, distribution.mean(), rtol=1e-13)
    np.testing.assert_allclose(var, distribution.var(), rtol=1e-13)


def test_two_agents_have_variance_495() -> None:
    mean, var = progeny_moments(np.full((2, 2), 0.45))
    np.testing.assert_allclose(mean, [10, 10], rtol=1e-13)
    np.testing.assert_allclose(var, [495, 495], rtol=1e-13)


def test_moments_of_a_chain_by_rationals() -> None:
    # Z_2 = 1, Z_1 = 1 + Bernoulli(b), Z_0 = 1 + Bernoulli(a) Z_1.
    a, b = Fraction(1, 2), Fraction(1, 4)
    mean, var = progeny_moments(np.diag([float(a), float(b)], 1))
    assert mean.tolist() == [float(1 + a * (1 + b)), float(1 + b), 1.0]
    second = a * ((1 - b) + 4 * b)  # E (B Z_1)^2
    assert var.tolist() == [float(second - (a * (1 + b)) ** 2), float(b * (1 - b)), 0.0]


def test_simulated_words_have_these_moments() -> None:
    rng = np.random.default_rng(2)
    M = next_generation_matrix(ring(5), [0.1, 0.3, 0.2, 0.25, 0.15])
    M[0, 1], M[3, 0] = 0.6, 0.2
    words = 20_000
    now = np.zeros((words, 5), dtype=np.int64)
    now[:, 0] = 1
    total = now.sum(1)
    while now.any():
        now = rng.binomial(now[:, :, None], M).sum(1)
        total += now.sum(1)
    mean, var = progeny_moments(M)
    assert abs(total.mean() - mean[0]) < 4.5 * np.sqrt(var[0] / words)
    fourth = ((total - total.mean()) ** 4).mean()
    assert abs(total.var() - var[0]) < 4.5 * np.sqrt((fourth - var[0] ** 2) / words)


# ---- refusals ----


@pytest.mark.parametrize("function", [spectral_radius, extinction_by_type, progeny_moments])
@pytest.mark.parametrize(
    ("M", "said"),
    [
        ([[0.5, 0.5]], r"M has shape \(1, 2\), and must be \[..., N, N\]"),
        ([0.5], r"M has shape \(1,\)"),
        ([[1.5]], r"M\[0, 0\] is 1.5"),
        ([[0.1, np.nan], [0, 0]], r"M\[0, 1\] is nan"),
    ],
)
def test_what_is_no_matrix_of_probabilities_is_refused(function, M, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=said):
        function(M)


def test_p_for_another_number_of_agents_is_refused() -> None:
    with pytest.raises(UserError, match="p is for 3 agents, and hears for 2"):
        next_generation_matrix(np.ones((2, 2)), [0.1, 0.1, 0.1])
