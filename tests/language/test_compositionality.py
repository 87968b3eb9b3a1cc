"""Hand-made languages whose structure is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
from scipy.stats import spearmanr

import popcomm.language as language
from popcomm.errors import UserError
from popcomm.language import compositionality

GRID = np.array(list(product(range(10), repeat=2)))  # 2 attributes of 10 values
NAMED = np.stack([GRID[:, 0], GRID[:, 1] + 10], 1)  # no symbol stands for two of them
METRICS = [
    language.topographic_similarity,
    language.positional_disentanglement,
    language.bag_of_symbols_disentanglement,
    language.tree_reconstruction_error,
    language.context_independence,
]
Metric = Callable[..., float]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def holistic(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(GRID)


def test_a_language_that_names_attribute_after_attribute_is_compositional_by_every_measure() -> None:
    assert language.topographic_similarity(GRID, NAMED) == 1.0
    assert language.positional_disentanglement(GRID, NAMED) == pytest.approx(1.0)
    assert language.bag_of_symbols_disentanglement(GRID, NAMED) == pytest.approx(1.0)
    assert language.tree_reconstruction_error(GRID, NAMED) == 0.0
    assert language.context_independence(GRID, NAMED) == pytest.approx(1.0, abs=1e-6)


def test_the_cartesian_language_of_four_by_four_has_topographic_similarity_one() -> None:
    grid = np.array(list(product(range(4), repeat=2)))
    assert language.topographic_similarity(grid, grid[:, ::-1]) == 1.0
    assert (
        language.topographic_similarity(grid, grid, distance="cosine") < 1.0
    )  # as vectors (0, 1) and (0, 3) are alike


def test_symbols_that_mean_one_thing_in_front_and_another_behind_have_no_meaning_in_a_bag() -> None:
    assert language.positional_disentanglement(GRID, GRID) == pytest.approx(1.0)
    assert language.bag_of_symbols_disentanglement(GRID, GRID) == pytest.approx(0.0, abs=1e-9)
    assert language.context_independence(GRID, GRID) == pytest.approx(0.5, abs=1e-6)


def test_a_bag_of_symbols_in_any_order_is_disentangled_by_symbols_and_not_by_positions() -> None:
    turned = np.where(np.random.default_rng(0).random((len(GRID), 1)) < 0.5, NAMED, NAMED[:, ::-1])
    assert language.bag_of_symbols_disentanglement(GRID, turned) == pytest.approx(1.0)
    assert language.positional_disentanglement(GRID, turned) < 0.3


def test_codes_without_parts_are_no_more_systematic_than_chance() -> None:
    """200 languages: 10 are expected below .05, and more than 20 come once in a thousand."""
    similar = language.topographic_similarity
    told = [compositionality.chance(similar, GRID[::3], holistic(s)[::3], 19, s).p_value for s in range(200)]
    assert sum(p <= 0.05 for p in told) <= 20
    found = compositionality.chance(language.topographic_similarity, GRID, GRID, 99)
    assert found.p_value == 0.01
    assert found.low < found.mean < found.high < 0.2


def test_lower_is_better_where_errors_are_compared() -> None:
    assert compositionality.chance(language.tree_reconstruction_error, GRID, GRID, 19, lower=True).p_value == 0.05
    assert compositionality.chance(language.tree_reconstruction_error, GRID, GRID, 19).p_value == 1.0


def test_chance_leaves_the_rows_of_a_meaning_together() -> None:
    """Ten rows of each of ten meanings: as many controls are as systematic, whatever the number of rows."""
    meanings = GRID[::11]
    seen: list[np.ndarray] = []

    def spy(meant: np.ndarray, said: np.ndarray) -> float:
        seen.append(meant)
        return 0.0

    compositionality.chance(spy, meanings.repeat(10, 0), np.zeros((100, 1), int), 3)
    for meant in seen:
        assert (meant.reshape(10, 10, 2) == meant.reshape(10, 10, 2)[:, :1]).all()
        assert len(np.unique(meant, axis=0)) == 10


@pytest.mark.parametrize("metric", METRICS)
def test_symbols_behind_the_end_symbol_are_no_part_of_the_message(metric: Metric) -> None:
    """One reference has .817 for this language by topographic similarity."""
    rng = np.random.default_rng(0)
    said = NAMED + 1
    junk = np.concatenate([said, np.zeros((100, 1), int), rng.integers(0, 11, (100, 3))], 1)
    assert metric(GRID, junk, end_symbol=0) == pytest.approx(metric(GRID, said))
    assert metric(GRID, junk) != pytest.approx(metric(GRID, said), abs=0.05)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("messages", [np.full((100, 3), 7), np.full((100, 2), -1), GRID[:, :1] * 0])
def test_constant_messages_have_the_value_that_is_stated(metric: Metric, messages: np.ndarray) -> None:
    """References divide nought by nought."""
    if metric is language.context_independence:  # one symbol, of 20 concepts; no symbol
        assert metric(GRID, messages) == pytest.approx(0.05 if messages.max() >= 0 else 0.0)
    else:
        assert metric(GRID, messages) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_one_meaning_has_nothing_to_be_systematic_about(metric: Metric) -> None:
    expected = {language.tree_reconstruction_error: 1.0}.get(metric, 0.0)
    if metric is language.context_independence:
        assert 0.0 <= metric(GRID * 0, GRID) <= 0.1
    else:
        assert metric(GRID * 0, GRID) == pytest.approx(expected)
    assert np.isfinite(metric([[3, 4]], [[1, 2]]))  # a single row


@pytest.mark.parametrize("metric", METRICS)
def test_one_attribute_is_enough(metric: Metric) -> None:
    """References take the second best attribute's index where there is one only."""
    value = metric(np.arange(10), np.arange(10)[:, None] + 3)
    if metric is language.topographic_similarity:
        assert value == 0.0  # ten names, all as far apart: nothing to compare
    else:
        assert value == pytest.approx(0.0 if metric is language.tree_reconstruction_error else 1.0, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_no_messages_and_unequal_numbers_are_sentences(metric: Metric) -> None:
    with pytest.raises(UserError, match="M > 0"):
        metric([], [])
    with pytest.raises(UserError, match="2 meanings and 1 messages"):
        metric([[1, 2], [3, 4]], [[1, 2]])


def test_disentanglement_is_the_gap_that_is_computed_by_hand() -> None:
    meanings, messages = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [0], [1], [0]])
    # Both attributes tell as much of the one message that differs.
    assert language.positional_disentanglement(meanings, messages) == pytest.approx(0.0, abs=1e-9)
    meanings, messages = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 1]]), np.array([[0], [0], [1], [1], [1]])
    h = np.log2(5) - 0.4 - 0.6 * np.log2(3)  # of 2 : 3, the position's and what the first attribute tells of it
    second = 0.019973  # of the table (1, 1), (1, 2)
    assert language.positional_disentanglement(meanings, messages) == pytest.approx((h - second) / h, abs=1e-5)


def test_tree_reconstruction_finds_the_minimum_that_gradient_descent_finds() -> None:
    rng = np.random.default_rng(0)
    messages = np.concatenate([GRID[:, :1], rng.integers(0, 4, (100, 1))], 1)
    target = np.hstack([np.eye(10)[messages[:, 0]], np.eye(4)[messages[:, 1]]])
    design = np.hstack([np.eye(10)[GRID[:, 0]], np.eye(10)[GRID[:, 1]]])
    weights = np.zeros((20, 14))
    for _ in range(4000):
        weights -= 0.04 * design.T @ (design @ weights - target)
    expected = ((design @ weights - target) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
    assert language.tree_reconstruction_error(GRID, messages) == pytest.approx(expected, rel=1e-6)
    twice = language.tree_reconstruction_error(np.tile(GRID, (2, 1)), np.tile(messages, (2, 1)))
    assert twice == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("values", "others"), [(4, 3), (4, 4000)])
def test_rank_correlation_is_spearmans(values: int, others: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, values, 600)
    y = x + rng.integers(0, others, 600) / 2
    assert compositionality.rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)


def test_the_cap_draws_rows_from_the_seed() -> None:
    some = language.topographic_similarity(GRID, holistic(0), cap=40, seed=1)
    assert some == language.topographic_similarity(GRID, holistic(0), cap=40, seed=1)
    assert some != language.topographic_similarity(GRID, holistic(0), cap=40, seed=2)


def test_vectors_are_compared_by_their_angles() -> None:
    angle = np.linspace(0, 1.5, 12)
    vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
    unary = np.tril(np.ones((12, 12), int))  # neighbours differ in one symbol
    assert language.topographic_similarity(vectors, unary, distance="cosine") == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(UserError, match="must be hamming or cosine"):
        language.topographic_similarity(vectors, unary, distance="euclid")  # type: ignore[arg-type]
