"""The shared log: layout by worlds, the shuffle, and which entries find no room."""

import numpy as np
import pytest
from scipy import stats

from popcomm.channels.broadcast.log import PUBLISHED, Log, board, empty_log, entries, joined, shuffled


def a_log(worlds: list[int], words: list[int], sources: list[int] | int = 0) -> Log:
    return entries(np.array(worlds, np.int32), np.array(words, np.int32), np.array(sources))


def test_columns_that_are_the_same_everywhere_are_given_as_numbers():
    log = entries(np.array([0, 1]), np.array([5, 6], np.int64), PUBLISHED, 3, echo=True)
    assert log.source.tolist() == [-1, -1]
    assert log.generation.tolist() == [3, 3]
    assert log.echo.tolist() == [True, True]
    assert [column.dtype for column in log.columns] == [np.int32, np.int64, np.int32, np.int32, bool]


def test_an_empty_log_is_silence_of_the_words_own_type():
    log = empty_log(np.dtype(np.int64))
    assert len(log) == 0
    assert log.word.dtype == np.int64
    assert board(log, 2, 3).word.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_board_lays_each_world_out_in_its_row():
    laid = board(a_log([0, 2, 2], [7, 8, 9], [4, 5, PUBLISHED]), 3, 2)
    assert laid.word.tolist() == [[7, 0], [0, 0], [8, 9]]
    assert laid.source.tolist() == [[4, 0], [0, 0], [5, -1]]


def test_slots_count_from_zero_in_every_world():
    assert a_log([0, 0, 2, 2, 2, 3], [1] * 6).slots(5).tolist() == [0, 1, 0, 1, 2, 0]


def test_joining_and_taking_keep_the_columns_together():
    both = joined([a_log([0], [1], [2]), a_log([1, 1], [3, 5], [4, 6])])
    assert [column.tolist() for column in both.take(both.word > 1).columns[:3]] == [[1, 1], [3, 5], [4, 6]]


def test_the_shuffle_brings_worlds_together_and_loses_nothing_below_the_capacity():
    rng = np.random.default_rng(0)
    world = rng.integers(0, 50, 1000)
    log = entries(world, np.arange(1, 1001, dtype=np.int32), np.arange(1000), np.arange(1000) % 7)
    kept, dropped = shuffled(log, 50, 1000, rng)
    assert dropped == 0
    assert np.all(np.diff(kept.world) >= 0)
    assert np.array_equal(np.sort(kept.word), log.word)
    assert np.array_equal(kept.source, kept.word - 1)
    assert np.array_equal(kept.world, world[kept.source])
    assert np.array_equal(kept.generation, kept.source % 7)


def test_what_is_above_the_capacity_is_dropped_before_it_is_written_and_counted_by_world():
    rng = np.random.default_rng(1)
    kept, dropped = shuffled(a_log([0] * 5 + [1] * 2 + [3] * 9, list(range(1, 17))), 4, 3, rng)
    assert kept.counts(4).tolist() == [3, 2, 0, 3]
    assert dropped == 2 + 6


@pytest.mark.parametrize("num_worlds", [1, 3])
def test_silence_is_shuffled_to_silence(num_worlds):
    kept, dropped = shuffled(empty_log(np.dtype(np.int32)), num_worlds, 4, np.random.default_rng(0))
    assert len(kept) == 0
    assert dropped == 0


def test_every_order_is_equally_likely():
    """Six orders of three entries in each of 12,000 worlds: chi-square with 5 degrees of freedom."""
    worlds = 12_000
    log = a_log(np.repeat(np.arange(worlds), 3).tolist(), [1, 2, 3] * worlds)
    kept, _ = shuffled(log, worlds, 3, np.random.default_rng(2))
    order = kept.word.reshape(worlds, 3) @ np.array([100, 10, 1])
    counts = np.unique(order, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-4


def test_drops_are_blind_to_the_place_in_the_log():
    """Each of 8 entries is kept with probability 3/8, the first in the log as the last."""
    worlds = 20_000
    log = a_log(np.repeat(np.arange(worlds), 8).tolist(), list(range(1, 9)) * worlds)
    kept, dropped = shuffled(log, worlds, 3, np.random.default_rng(3))
    assert dropped == 5 * worlds
    counts = np.bincount(kept.word, minlength=9)[1:]
    # Counts of a draw without replacement vary less than chi-square asks for: by (1 - 3/8) N/(N - 1).
    assert np.abs(counts - 7500).max() < 4.5 * np.sqrt(worlds * 3 / 8 * 5 / 8)


def test_pairs_are_kept_together_as_often_as_chance_has_it():
    """Of 5 entries 2 are kept: every one of the 10 pairs with probability 1/10."""
    worlds = 20_000
    log = a_log(np.repeat(np.arange(worlds), 5).tolist(), [1, 2, 4, 8, 16] * worlds)
    kept, _ = shuffled(log, worlds, 2, np.random.default_rng(4))
    counts = np.unique(kept.word.reshape(worlds, 2).sum(1), return_counts=True)[1]
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_shuffle_is_a_function_of_the_generator():
    log = a_log([0] * 20 + [1] * 20, list(range(1, 41)))
    first, second = (shuffled(log, 2, 10, np.random.default_rng(5))[0] for _ in range(2))
    other = shuffled(log, 2, 10, np.random.default_rng(6))[0]
    assert np.array_equal(first.word, second.word)
    assert not np.array_equal(first.word, other.word)
