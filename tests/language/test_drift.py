"""Drift of hand-made languages: closed forms, a known bias, and languages that change in one known way."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.language import drift as language
from popcomm.language.basics import jensen_shannon


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


counts = st.lists(st.integers(0, 30), min_size=5, max_size=5).filter(any).map(np.array)


# ---- the divergence ----


def test_a_symbol_given_up_by_half_of_the_messages_is_worked_out_by_hand():
    """p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): H(m) - H(q) / 2 = 2 - 3/4 log2 3 - 1/2."""
    expected = 2 - 0.75 * np.log2(3) - 0.5
    assert jensen_shannon(np.array([8, 0]), np.array([3, 3])) == pytest.approx(expected, abs=1e-12)


def test_messages_in_common_count_zero_and_none_in_common_one_bit():
    assert jensen_shannon(np.array([3, 1]), np.array([6, 2])) == 0.0
    assert jensen_shannon(np.array([3, 1, 0]), np.array([0, 0, 5])) == pytest.approx(1.0)


def test_no_messages_have_no_divergence():
    none, some = np.zeros(3, int), np.array([1, 2, 0])
    assert np.isnan(jensen_shannon(none, some))
    assert np.isnan(language.drift(np.stack([none, some])).consecutive).all()
    assert np.isnan(language.given_label(np.array([[4, 0], [0, 0]]), np.array([[0, 0], [0, 4]])))


@settings(max_examples=60, deadline=None)
@given(counts, counts)
def test_divergence_is_symmetric_bounded_and_zero_for_the_same_distribution(p, q):
    found = jensen_shannon(p, q)
    assert found == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert 0.0 <= found <= 1.0
    assert jensen_shannon(p, 3 * p) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(counts, min_size=6, max_size=6))
def test_drift_by_label_lies_between_that_of_its_labels(rows):
    p, q = np.array(rows[:3]), np.array(rows[3:])
    each = jensen_shannon(p, q)
    assert each.min() - 1e-12 <= language.given_label(p, q) <= each.max() + 1e-12
    assert language.given_label(p, q) == pytest.approx(language.given_label(q, p), abs=1e-12)


# ---- between checkpoints ----


def test_each_entry_is_about_what_came_after_its_checkpoint():
    """The language turns over once, between the second and the third of four checkpoints."""
    old, new = np.array([50, 50, 0]), np.array([0, 0, 100])
    found = language.drift(np.stack([old, old, new, new]))
    assert found.consecutive == pytest.approx([0.0, 1.0, 0.0])
    assert found.to_last == pytest.approx([1.0, 1.0, 0.0])


def test_positions_drift_each_on_its_own():
    before, after = [[9, 0], [0, 9]], [[9, 0], [9, 0]]
    assert language.drift(np.array([before, after])).consecutive == pytest.approx(np.array([[0.0, 1.0]]))


def test_one_checkpoint_has_nothing_after_it():
    assert language.drift(np.ones((1, 4, 3), int)).to_last.shape == (0, 4)


def test_samples_of_one_distribution_diverge_by_the_known_bias_and_by_no_more_than_chance():
    rng = np.random.default_rng(0)
    distribution, n, m = np.full(20, 1 / 20), 1000, 500
    bias = 19 / (8 * np.log(2)) * (1 / n + 1 / m)
    pairs = np.stack([rng.multinomial(n, distribution, 300), rng.multinomial(m, distribution, 300)])
    found = language.drift(pairs, shuffles=2)
    assert found.consecutive.mean() == pytest.approx(bias, rel=0.05)
    assert found.consecutive_chance.mean() == pytest.approx(bias, rel=0.05)
    assert abs(found.to_last_above_chance.mean()) < 0.05 * bias


def test_messages_that_are_all_different_drift_no_more_than_chance():
    """Half of the messages are in neither of two samples: plug-in divergence is near 1, and so is its control."""
    draws = np.random.default_rng(1).integers(0, 10_000, (2, 400))
    counted = np.stack([np.bincount(d, minlength=10_000) for d in draws])
    found = language.drift(counted)
    assert found.consecutive[()] > 0.9
    assert abs(found.consecutive_above_chance[()]) < 0.02


def test_episodes_of_one_distribution_drift_no_more_than_other_episodes_do():
    """Each of 12 episodes at a checkpoint says the same symbol in all of its 30 steps: 12 draws, not 360."""
    rng = np.random.default_rng(5)
    above, alone = [], []
    for seed in range(30):
        said = rng.integers(0, 5, 24)
        symbols, streams = np.repeat(said, 30)[:, None], np.repeat(np.arange(24), 30)
        checkpoints = streams // 12
        found = language.drift_of_streams(symbols, 5, checkpoints, streams, seed=seed)
        above.append(found.consecutive_above_chance[0, 0])
        alone.append(language.drift(language.symbol_counts(symbols, 5, checkpoints)).consecutive_above_chance[0, 0])
        assert found.consecutive.tolist() == found.to_last.tolist()
    assert abs(np.mean(above)) < 3 * np.std(above) / 30**0.5
    assert np.mean(alone) > 5 * np.std(above) / 30**0.5


@pytest.mark.parametrize("labelled", [False, True])
def test_a_change_in_all_episodes_is_drift(labelled):
    """Three checkpoints of six episodes; all say 0, and at the last one 1. With labels, half of them stay."""
    streams = np.repeat(np.arange(18), 10)
    checkpoints, labels = streams // 6, np.arange(180) % 2
    symbols = ((checkpoints == 2) & ((labels == 0) | (not labelled))).astype(int)[:, None]
    found = language.drift_of_streams(symbols, 2, checkpoints, streams, labels if labelled else None)
    share = 0.5 if labelled else 1.0
    assert found.consecutive[:, 0] == pytest.approx([0.0, share])
    assert found.to_last[:, 0] == pytest.approx([share, share])
    assert found.consecutive_chance[0, 0] == 0.0
    assert 0 < found.to_last_chance[0, 0] < 0.3 * share


def test_a_real_change_stands_out_of_chance():
    rng = np.random.default_rng(2)
    a, b = np.array([0.5, 0.3, 0.2, 0]), np.array([0.1, 0.3, 0.2, 0.4])
    found = language.drift(np.stack([rng.multinomial(400, a), rng.multinomial(400, b)]))
    # 1/2 H of the mixture and so on: the closed form of the two distributions.
    assert found.consecutive_above_chance[()] == pytest.approx(float(jensen_shannon(a, b)), abs=0.03)


def test_dealing_keeps_both_sizes_and_all_messages():
    rng = np.random.default_rng(3)
    p, q = rng.integers(0, 9, (2, 4, 3, 6))
    first, second = language._dealt(p, q, rng)
    assert (first.sum(-1) == p.sum(-1)).all()
    assert (first + second == p + q).all()
    assert (first >= 0).all()
    assert (second >= 0).all()


# ---- given what is talked about ----


def code(labels: np.ndarray, shift: int) -> np.ndarray:
    """One symbol for each of 4 labels: [M] -> [M, 1]."""
    return ((labels + shift) % 4)[:, None]


def counted(first: np.ndarray, second: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts [2, 1, 4] and [2, 1, 4, 4] of the labels of two checkpoints, whose code is shifted between them."""
    symbols = np.concatenate([code(first, 0), code(second, shift)])
    checkpoints = np.repeat([0, 1], [len(first), len(second)])
    labels = np.concatenate([first, second])
    return language.symbol_counts(symbols, 4, checkpoints), language.symbol_counts(symbols, 4, checkpoints, labels)


def test_other_topics_in_the_same_language_are_no_drift_of_the_language():
    plain, by_label = counted(np.repeat(np.arange(4), [97, 1, 1, 1]), np.repeat(np.arange(4), [1, 1, 1, 97]), 0)
    assert language.drift(plain).consecutive[0, 0] > 0.8
    assert language.drift(by_label, labelled=True).consecutive[0, 0] == 0.0


def test_a_language_that_swaps_its_words_drifts_though_its_symbols_are_used_as_before():
    labels = np.repeat(np.arange(4), 25)
    plain, by_label = counted(labels, labels, 1)
    assert language.drift(plain).consecutive[0, 0] == 0.0
    found = language.drift(by_label, labelled=True)
    assert found.consecutive[0, 0] == pytest.approx(1.0)
    # 50 messages on a label, two symbols in equal parts: the bias of one degree of freedom.
    assert found.consecutive_chance[0, 0] == pytest.approx(1 / (8 * np.log(2)) * 2 / 25, abs=0.015)


def test_labels_weigh_as_much_as_they_occur_and_only_if_both_have_them():
    """Label 0 keeps its word, label 1 changes it, label 2 is missing later: shares (1/2, 1/4) and (1/4, 3/4)."""
    p = np.array([[4, 0], [2, 0], [2, 0]])
    q = np.array([[2, 0], [0, 6], [0, 0]])
    assert language.given_label(p, q) == pytest.approx((1 / 4 + 3 / 4) / (1 / 2 + 1 / 4 + 1 / 4 + 3 / 4))


def test_counts_by_label_drop_messages_without_one_and_sum_to_the_others():
    rng = np.random.default_rng(4)
    symbols, checkpoints, labels = rng.integers(0, 7, (90, 3)), rng.integers(0, 4, 90), rng.integers(-1, 5, 90)
    keep = labels >= 0
    by_label = language.symbol_counts(symbols, 7, checkpoints, labels, 6)
    assert by_label.shape == (4, 3, 6, 7)
    assert (by_label.sum(2) == language.symbol_counts(symbols[keep], 7, checkpoints[keep])).all()
    at = (checkpoints == 2) & (labels == 1) & (symbols[:, 1] == 5)
    assert by_label[2, 1, 1, 5] == at.sum()


def test_symbols_outside_the_vocabulary_are_an_error():
    with pytest.raises(ValueError, match="from 0 to 7, and V is 4"):
        language.symbol_counts(np.array([[0, 7]]), 4, np.zeros(1, int))


def test_whole_messages_are_told_apart_by_any_symbol():
    codes, number = language.whole_messages(np.array([[0, 1], [1, 0], [0, 1], [0, 2]]))
    assert number == 3
    assert codes.tolist() == [[0], [2], [0], [1]]


# ---- greedy speakers, and stability ----


def test_changed_names_are_counted_per_speaker_and_by_whole_messages():
    """Speaker 0 renames one of four meanings in one symbol, and takes it back; speaker 1 never changes."""
    said = np.zeros((3, 2, 4, 2), int)
    said[1, 0, 3, 1] = 5
    found = language.changed_names(said)
    assert found.consecutive.tolist() == [[0.25, 0.0], [0.25, 0.0]]
    assert found.to_last.tolist() == [[0.0, 0.0], [0.25, 0.0]]


EPISODES = np.array([10, 20, 40, 80])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], 10),
        ([0.9, 0.0, 0.3, 0.0], 80),  # a relapse counts
        ([0.9, 0.3, 0.05, 0.0], 40),
        ([0.0, 0.0, 0.0, 0.3], None),
        ([0.9, 0.1, 0.1, 0.1], None),  # the bound itself is not under it
        ([0.0, np.nan, 0.0, 0.0], 40),  # what is not known is not stable
        ([0.0, 0.0, 0.0, np.nan], None),
    ],
)
def test_stable_is_from_where_it_stays_under_the_bound(values, expected):
    assert language.stable_from(np.array(values), 0.1, EPISODES) == expected


def test_nothing_measured_is_not_stable_and_lengths_must_fit():
    assert language.stable_from(np.zeros(0), 0.1, np.zeros(0)) is None
    with pytest.raises(ValueError, match="both must be"):
        language.stable_from(np.zeros(3), 0.1, EPISODES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 1))
def test_after_stability_all_is_under_the_bound_and_just_before_it_is_not(values, bound):
    episodes = np.arange(len(values))
    found = language.stable_from(np.array(values), bound, episodes)
    start = len(values) if found is None else found
    assert all(v < bound for v in values[start:])
    assert start == 0 or values[start - 1] >= bound
