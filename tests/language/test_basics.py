"""Known answers: hand-made languages, hand-made graphs, closed forms."""

from __future__ import annotations

import warnings
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.language import basics


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def all_pairs(n: int) -> np.ndarray:
    """Every message of two symbols out of n, once: [n * n, 2]."""
    return np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)


def test_two_equally_used_symbols_have_one_bit_whatever_the_vocabulary():
    messages = np.array([[0], [1], [1], [0]])
    assert basics.symbol_entropy(messages, 64) == 1.0
    assert basics.perplexity(np.array([2, 2, 0])) == 2.0


def test_uniform_symbols_have_log2_of_the_vocabulary_at_each_position_and_pooled():
    messages = all_pairs(8)
    assert basics.position_entropy(messages, 8) == pytest.approx([3.0, 3.0])
    assert basics.symbol_entropy(messages, 8) == pytest.approx(3.0)


def test_positions_are_kept_apart_and_pooled_together():
    messages = np.array([[0, 1], [0, 1]])
    assert basics.position_entropy(messages, 2).tolist() == [0.0, 0.0]
    assert basics.symbol_entropy(messages, 2) == 1.0


def test_no_messages_give_nan_and_no_warning():
    none = np.zeros((0, 3), dtype=int)
    assert np.isnan(basics.symbol_entropy(none, 4))
    assert np.isnan(basics.position_entropy(none, 4)).all()
    assert np.isnan(basics.vocabulary_used(none, 4))
    assert np.isnan(basics.mutual_information(np.zeros(0, int), np.zeros(0, int)))
    assert np.isnan(basics.label_information(none, np.zeros(0, int)).bits)
    assert np.isnan(basics.sequential_information(none, np.zeros(0, int), np.zeros(0, int)).bits)
    assert np.isnan(basics.top_attention(np.zeros((2, 3)), np.zeros((2, 3), bool)))


def test_vocabulary_counts_symbols_seen_at_any_position():
    assert basics.vocabulary_used(np.array([[0, 3], [0, 5]]), 10) == pytest.approx(0.3)


def test_vocabulary_with_a_minimum_share_leaves_slips_out():
    messages = np.array([[0]] * 98 + [[1]] * 2)
    assert basics.vocabulary_used(messages, 4) == 0.5
    assert basics.vocabulary_used(messages, 4, min_share=0.02) == 0.25


def test_symbols_outside_the_vocabulary_are_an_error():
    with pytest.raises(ValueError, match="from 0 to 7, and V is 4"):
        basics.symbol_counts(np.array([[0, 7]]), 4)


def test_a_deterministic_map_has_the_information_of_its_label():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    p = np.array([0.5, 0.3, 0.2])
    entropy = -(p * np.log2(p)).sum()
    assert basics.mutual_information(np.array([7, 2, 9])[labels], labels) == pytest.approx(entropy)


def test_labels_below_zero_are_left_out():
    x, labels = np.array([0, 1, 0, 1]), np.array([0, 1, -1, -1])
    assert basics.mutual_information(x, labels) == pytest.approx(1.0)
    messages, many = np.tile(x[:, None], (100, 1)), np.tile(labels, 100)
    assert basics.label_information(messages, many).samples == 200


def test_the_full_grid_is_independent():
    grid = all_pairs(5)
    assert basics.mutual_information(grid[:, 0], grid[:, 1]) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=60))
def test_information_is_symmetric_and_bounded_by_both_entropies(pairs):
    x, y = np.array(pairs).T
    found = basics.mutual_information(x, y)
    assert found == pytest.approx(basics.mutual_information(y, x), abs=1e-12)
    smaller = min(basics.entropy(np.bincount(x)), basics.entropy(np.bincount(y)))
    assert -1e-12 <= found <= smaller + 1e-9


def test_adjusting_takes_the_bias_of_few_samples_away():
    rng = np.random.default_rng(3)
    messages, labels = rng.integers(0, 64, (300, 5)), rng.integers(0, 16, 300)
    found = basics.label_information(messages, labels)
    assert found.bits > 1.0  # the plug-in estimate is nothing but bias here
    assert abs(found.adjusted) < 0.1
    assert basics.adjusted_mutual_information(messages, labels) == found.adjusted


def test_the_informative_position_is_found_and_its_code_is_above_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2000)
    messages = rng.integers(0, 8, (2000, 3))
    messages[:, 1] = labels + 2
    found = basics.label_information(messages, labels)
    assert found.position == 1
    assert found.above_chance
    assert found.adjusted == pytest.approx(2.0, abs=0.03)
    mean = basics.label_information(messages, labels, reduce="mean")
    assert mean.adjusted == pytest.approx(2.0 / 3, abs=0.03)


def slow(rng: np.random.Generator, classes: int, stay: float, streams: int, steps: int) -> np.ndarray:
    """Series [S, T] that keep their class with a probability, and draw another one otherwise."""
    series = rng.integers(classes, size=(streams, steps))
    for t in range(1, steps):
        kept = rng.random(streams) < stay
        series[kept, t] = series[kept, t - 1]
    return series


@pytest.mark.parametrize("told_streams", [True, False])
@pytest.mark.parametrize(("stay", "streams", "steps"), [(0.0, 24, 40), (0.6, 24, 40), (0.9, 24, 40), (0.9, 4, 200)])
def test_slow_symbols_that_have_nothing_to_do_with_slow_labels_are_not_called_meaningful(
    stay: float, streams: int, steps: int, told_streams: bool
):
    """One in 31 languages may be, by chance: 2 of 60 are expected, and 8 or more come once in a thousand."""
    rng, found = np.random.default_rng(8), 0
    stream = np.repeat(np.arange(streams), steps) if told_streams else None
    for seed in range(60):
        labels = slow(rng, 8, stay, streams, steps).ravel()
        messages = np.stack([slow(rng, 16, stay, streams, steps).ravel() for _ in range(3)], 1)
        found += basics.label_information(messages, labels, seed=seed, streams=stream).above_chance
    assert found < 8


def test_a_slow_code_is_found_beside_slower_symbols_that_mean_nothing():
    rng, found = np.random.default_rng(9), []
    for seed in range(10):
        labels = slow(rng, 8, 0.9, 24, 40).ravel()
        clear = rng.random(labels.shape) < 0.3
        code = np.where(clear, labels, slow(rng, 8, 0.9, 24, 40).ravel())
        noise = [slow(rng, 32, 0.95, 24, 40).ravel() for _ in range(2)]
        told = basics.label_information(np.stack([noise[0], code, noise[1]], 1), labels, seed=seed)
        found.append((told.position, told.above_chance))
    assert found == [(1, True)] * 10


def test_displaced_streams_stay_whole():
    rng = np.random.default_rng(0)
    many = basics.displaced(np.full(30, 4), rng).reshape(30, 4)
    assert (np.diff(many) == 1).all()
    assert sorted(many[:, 0].tolist()) == list(range(0, 120, 4))
    few = basics.displaced(np.array([50, 50]), rng)
    assert sorted(few.tolist()) == list(range(100))
    # Two streams in either order, turned round: three seams at most, and the ends meet.
    assert (np.diff(few) % 100 != 1).sum() <= 3
    assert basics.displaced(np.array([1]), rng).tolist() == [0]


def test_a_constant_language_has_no_information():
    found = basics.label_information(np.zeros((50, 2), int), np.arange(50) % 5)
    assert (found.bits, found.adjusted, found.above_chance) == (0.0, 0.0, False)


def test_the_cap_limits_the_sample_and_the_seed_repeats_it():
    rng = np.random.default_rng(1)
    messages, labels = rng.integers(0, 4, (500, 2)), rng.integers(0, 4, 500)
    found = basics.label_information(messages, labels, cap=100, seed=5)
    assert found.samples == 100
    assert found == basics.label_information(messages, labels, cap=100, seed=5)
    assert found != basics.label_information(messages, labels, cap=100, seed=6)


def streams_of(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """symbols [S, T] -> messages [S * T, 1], streams, steps."""
    s, t = np.indices(symbols.shape)
    return symbols.reshape(-1, 1), s.ravel(), t.ravel()


def test_a_cycle_is_fully_told_by_its_past_and_shuffled_time_is_not():
    cycle = (np.arange(40)[:, None] + np.arange(32)) % 4
    found = basics.sequential_information(*streams_of(cycle))
    assert found.bits == pytest.approx(2.0)
    assert found.chance < 0.1
    assert found.samples == 40 * 31


def test_a_dialect_without_order_is_not_above_chance():
    # Every sender says one symbol only: I(m_t; m_t-1) is 2 bits, and none of it is order.
    constant = np.repeat(np.arange(40) % 4, 32).reshape(40, 32)
    found = basics.sequential_information(*streams_of(constant))
    assert found.bits == pytest.approx(2.0)
    assert found.adjusted == pytest.approx(0.0, abs=1e-9)
    assert not found.above_chance


def test_the_order_of_rows_does_not_matter_and_gaps_leave_no_pair():
    messages, streams, steps = streams_of((np.arange(6)[:, None] + np.arange(10)) % 3)
    mixed = np.random.default_rng(0).permutation(len(messages))
    assert basics.sequential_information(messages[mixed], streams[mixed], steps[mixed]).bits == pytest.approx(
        basics.sequential_information(messages, streams, steps).bits
    )
    kept = steps != 5
    assert basics.sequential_information(messages[kept], streams[kept], steps[kept]).samples == 6 * 7
    assert basics.sequential_information(messages, streams, steps, lag=3).samples == 6 * 7


def test_symbols_that_name_slow_labels_have_no_order_of_their_own():
    """Two hundred languages, of which 10 are expected to be called ordered; more than 20 come once in a thousand."""
    rng, found, plain = np.random.default_rng(5), 0, 0
    for seed in range(200):
        labels = slow(rng, 4, 0.8, 6, 60)
        symbols = np.where(rng.random(labels.shape) < 0.7, labels, rng.integers(0, 4, labels.shape))
        series = streams_of(symbols)
        told = basics.sequential_information(*series, shuffles=19, seed=seed, labels=labels.ravel())
        found += told.above_chance
        plain += seed < 10 and basics.sequential_information(*series, shuffles=19, seed=seed).above_chance
    assert found <= 20
    assert plain == 10  # with steps shuffled at will, all of them are ordered


def test_a_cycle_beside_slow_labels_is_order_of_the_language():
    rng = np.random.default_rng(6)
    for seed in range(10):
        labels = slow(rng, 4, 0.8, 6, 60)
        cycle = (rng.integers(0, 3, (6, 1)) + np.arange(60)) % 3
        told = basics.sequential_information(
            *streams_of(labels * 3 + cycle), shuffles=19, seed=seed, labels=labels.ravel()
        )
        assert told.above_chance


def test_the_cap_on_streams_keeps_whole_streams():
    messages, streams, steps = streams_of((np.arange(20)[:, None] + np.arange(10)) % 3)
    assert basics.sequential_information(messages, streams, steps, cap=55).samples == 5 * 9


def test_a_lag_below_one_is_an_error():
    with pytest.raises(ValueError, match="lag is 0"):
        basics.sequential_information(np.zeros((4, 1), int), np.zeros(4, int), np.arange(4), lag=0)


def test_transitions_count_followers_of_the_same_sender():
    counts = basics.transitions(*streams_of(np.array([[0, 1, 1], [2, 0, 1]])), 3)
    assert counts.tolist() == [[0, 2, 0], [0, 1, 0], [1, 0, 0]]


def test_groups_with_symbols_of_their_own_are_far_from_the_population():
    messages, groups = np.repeat([0, 1], 100)[:, None], np.repeat([0, 1], 100)
    found = basics.specialisation(messages, groups, 4, 3)
    # JS((1, 0), (1/2, 1/2)) = H(3/4, 1/4) - 1/2
    expected = basics.entropy(np.array([3, 1])) - 0.5
    assert found.divergence[:2] == pytest.approx([expected, expected])
    assert found.chance[:2].max() < 0.02
    assert np.isnan(found.divergence[2])
    assert np.isnan(found.probabilities[2]).all()
    assert found.counts.tolist() == [100, 100, 0]


def test_groups_that_speak_alike_are_no_farther_than_chance():
    rng = np.random.default_rng(0)
    found = basics.specialisation(rng.integers(0, 16, (3000, 2)), rng.integers(0, 5, 3000), 16, 5)
    assert np.abs(found.divergence - found.chance).max() < 0.005


def test_what_groups_have_by_chance_is_what_their_dealing_gives():
    """Each stream of 50 has a symbol of its own; two groups of five streams differ by no more than other fives do."""
    rng = np.random.default_rng(4)
    far, own = 0, 0
    for seed in range(40):
        symbols, group = np.repeat(rng.integers(0, 6, 10), 50)[:, None], np.repeat(rng.permutation(10) % 2, 50)

        def deal(rng, group=group):
            return np.repeat(rng.permutation(group[::50]), 50)

        far += basics.specialisation(symbols, group, 6, 2, seed=seed).p_value <= basics.LEVEL
        own += basics.specialisation(symbols, group, 6, 2, seed=seed, deal=deal).p_value <= basics.LEVEL
    assert far == 40  # as if each of the 500 were a draw of its own
    assert own <= 5


def test_jensen_shannon_of_disjoint_distributions_is_one_bit():
    assert basics.jensen_shannon(np.array([3, 0]), np.array([0, 5])) == pytest.approx(1.0)
    assert basics.jensen_shannon(np.array([3, 1]), np.array([6, 2])) == pytest.approx(0.0)


def star(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Everybody but 0 hears 0 with weight 0.7 and a right neighbour with 0.3; 0 hears 1 alone."""
    others = np.arange(1, n)
    neighbour = others % (n - 1) + 1
    senders = np.concatenate([np.zeros(n - 1, int), neighbour, [1]])
    listeners = np.concatenate([others, others, [0]])
    return senders, listeners, np.concatenate([np.full(n - 1, 0.7), np.full(n - 1, 0.3), [1.0]])


def test_the_hub_of_a_star_is_found():
    senders, _, weights = star(6)
    received = basics.received_weight(senders, weights, 7)
    assert received[:6] == pytest.approx([0.7, 0.65, 0.3, 0.3, 0.3, 0.3])
    assert np.isnan(received[6])  # nobody hears it
    assert basics.hubs(received, 2).tolist() == [True, True, False, False, False, False, False]


def test_uniform_attention_among_four_has_no_hub_although_all_are_over_a_fifth():
    assert not basics.hubs(np.full(10, 0.25), 4).any()


def test_a_share_of_a_tenth_among_many_is_no_hub_although_far_over_uniform():
    assert not basics.hubs(np.array([0.1, 0.01]), 100).any()


def test_columns_of_the_attention_matrix_are_the_listeners_shares():
    senders, listeners, weights = star(4)
    matrix = basics.attention_matrix(senders, listeners, weights, 5)
    assert matrix[:, 1].tolist() == pytest.approx([0.7, 0, 0.3, 0, 0])
    assert matrix.sum(0).tolist() == pytest.approx([1, 1, 1, 1, 0])


def test_top_attention_is_the_mean_of_the_largest_real_weights():
    weights = np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.4, 0.3, 0.3]])
    mask = np.array([[True, True, True], [False, True, True], [False, False, False]])
    assert basics.top_attention(weights, mask) == pytest.approx((0.5 + 0.1) / 2)
    assert basics.top_attention(np.full((7, 4), 0.25)) == pytest.approx(0.25)


def test_betweenness_of_a_path():
    # 0 - 1 - 2 - 3 - 4 both ways: 2 (5 - i - 1) i of the 12 ordered pairs of others run through i.
    path = np.eye(5, k=1) + np.eye(5, k=-1)
    assert basics.betweenness(path) == pytest.approx(np.array([0, 6, 8, 6, 0]) / 12)


def test_betweenness_of_a_directed_cycle_and_of_a_full_graph():
    assert basics.betweenness(np.roll(np.eye(5), 1, axis=1)) == pytest.approx(np.full(5, 0.5))
    assert basics.betweenness(np.ones((6, 6))).tolist() == [0.0] * 6


def test_equal_paths_share_the_betweenness():
    # A square: two ways from corner to opposite corner, each corner has half of one pair in both directions.
    square = np.zeros((4, 4))
    for i in range(4):
        square[i, (i + 1) % 4] = square[(i + 1) % 4, i] = 0.5
    assert basics.betweenness(square) == pytest.approx(np.full(4, 1 / 6))


def test_a_strong_detour_beats_a_weak_direct_link():
    weights = np.array([[0, 0.9, 0.1], [0, 0, 0.9], [0, 0, 0]])
    assert basics.betweenness(weights) == pytest.approx([0, 0.5, 0])
    weights[0, 2] = 0.5
    assert basics.betweenness(weights).tolist() == [0.0, 0.0, 0.0]


def test_fewer_than_three_have_nobody_between_and_isolated_agents_no_paths():
    assert basics.betweenness(np.ones((2, 2))).tolist() == [0.0, 0.0]
    assert basics.betweenness(np.zeros((4, 4))).tolist() == [0.0] * 4


def slow_betweenness(weights: np.ndarray) -> np.ndarray:
    """By listing every simple path: for graphs of a handful of agents."""
    n = len(weights)
    through = np.zeros(n)
    for s, t in permutations(range(n), 2):
        rest = [i for i in range(n) if i not in (s, t)]
        paths = [(s, *mid, t) for k in range(n - 1) for mid in permutations(rest, k)]
        lengths = [sum(1 / weights[a, b] if weights[a, b] > 0 else np.inf for a, b in pairwise(p)) for p in paths]
        best = [p for p, x in zip(paths, lengths, strict=True) if np.isfinite(x) and x <= min(lengths) + 1e-9]
        for path in best:
            through[list(path[1:-1])] += 1 / len(best)
    return through / ((n - 1) * (n - 2))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=25, max_size=25))
def test_betweenness_agrees_with_listing_all_paths(cells):
    weights = np.array(cells).reshape(5, 5)
    np.fill_diagonal(weights, 0)
    assert basics.betweenness(weights) == pytest.approx(slow_betweenness(weights))


def test_sampled_sources_estimate_the_same_betweenness():
    weights = np.zeros((60, 60))
    ring = np.arange(60)
    weights[ring, (ring + 1) % 60] = 1.0
    exact = basics.betweenness(weights)
    sampled = basics.betweenness(weights, max_sources=30)
    assert sampled.mean() == pytest.approx(exact.mean(), rel=0.05)
    assert not np.allclose(sampled, exact)
