"""Order beyond what is seen and what stays: controls that keep stays, and two hundred languages with and without."""

from __future__ import annotations

import numpy as np
import pytest

from popcomm.language import basics
from popcomm.language.streams import Stays, rearranged, stays

SERIES, STEPS = 4, 48


def staying(rng: np.random.Generator, stay: float, cycle: bool) -> np.ndarray:
    """Words of one speaker and label that stay for a while; the next is any other one, or the next of three."""
    said = rng.integers(0, 3, (SERIES, STEPS))
    for step in range(1, STEPS):
        turn = 1 if cycle else rng.integers(1, 3, SERIES)
        said[:, step] = np.where(rng.random(SERIES) < stay, said[:, step - 1], (said[:, step - 1] + turn) % 3)
    return said


def told(said: np.ndarray, seed: int, keep_stays: bool = True, labels: np.ndarray | None = None) -> basics.Information:
    stream, step = (values.ravel() for values in np.indices(said.shape))
    label = np.zeros(said.size, int) if labels is None else labels.ravel()
    return basics.sequential_information(
        said.reshape(-1, 1), stream, step, shuffles=19, seed=seed, labels=label, keep_stays=keep_stays
    )


def test_what_merely_stays_has_no_order() -> None:
    """Two hundred languages, of which 10 are expected to be called ordered; more than 20 come once in a thousand."""
    rng, found, plain = np.random.default_rng(1), 0, 0
    for seed in range(200):
        said = staying(rng, 0.7, cycle=False)
        found += told(said, seed).above_chance
        plain += seed < 10 and told(said, seed, keep_stays=False).above_chance
    assert found <= 20
    assert plain == 10, "with steps shuffled at will, all of them are ordered"


def test_words_that_come_in_turn_have_order_however_long_they_stay() -> None:
    rng = np.random.default_rng(2)
    assert all(told(staying(rng, 0.7, cycle=True), seed).above_chance for seed in range(200))


def test_two_words_that_take_turns_have_no_order_that_their_change_does_not_make() -> None:
    said = np.tile([0, 1], (SERIES, STEPS // 2))
    assert told(said, 1).p_value == 1


def test_only_pairs_on_one_label_count_and_labels_have_words_of_their_own() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, 2, (SERIES, STEPS // 4)), 4, axis=1)
    said = staying(rng, 0.5, cycle=False) + 3 * labels
    found = told(said, 1, labels=labels)
    assert not found.above_chance
    assert found.samples == sum(int((one[1:] == one[:-1]).sum()) for one in labels)


def test_stays_are_told_apart_by_message_label_and_gap() -> None:
    messages, blocks = np.array([[4, 4, 4, 5, 5, 5]]), np.array([0, 0, 1, 1, 1, 1])
    found = stays(messages, blocks, np.array([0, 1, 2, 3, 4, 9]))
    assert found.of.tolist() == [0, 0, 1, 2, 2, 3]
    assert found.first.tolist() == [0, 2, 3, 5]
    assert found.block.tolist() == [0, 1, 1, 1]
    assert found.code.tolist() == [0, 0, 1, 1]
    assert found.tied.tolist() == [False, False, True, False], "another label, the same label, after a gap"


def test_controls_keep_stays_labels_and_words() -> None:
    rng = np.random.default_rng(4)
    said = staying(rng, 0.6, cycle=False)
    stream, step = (values.ravel() for values in np.indices(said.shape))
    flat = said.ravel()
    found = stays(flat[None], stream, step)
    seen = [flat[rows] for rows in rearranged(found, rng, 6)]
    assert len(seen) == 6
    for control in seen:
        assert not np.array_equal(control, flat)
        again = stays(control[None], stream, step)
        assert np.array_equal(again.first, found.first)
        for one in range(SERIES):
            changed = np.sort(control[found.first[found.block == one]])
            assert np.array_equal(changed, np.sort(flat[found.first[found.block == one]]))


def test_all_arrangements_are_as_likely() -> None:
    """Four stays of one label, three of them tied: of the 12 orders of 0, 0, 1, 2 four have 0 beside 0 there."""
    zero = np.zeros(4, int)
    found = Stays(np.arange(4), np.arange(4), zero, np.array([0, 1, 0, 2]), np.array([False, True, True, False]))
    seen = [tuple(found.code[rows]) for rows in rearranged(found, np.random.default_rng(5), 2000)]
    names, counts = np.unique(seen, axis=0, return_counts=True)
    assert all(a != b != c for a, b, c, _ in names)
    assert len(names) == 8
    assert counts / 2000 == pytest.approx(np.full(8, 1 / 8), abs=0.04)
