"""Where hand-made messages fall into segments."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

import popcomm.language as language
from popcomm.errors import UserError
from popcomm.language import articulation

GRID = np.array(list(product(range(8), repeat=2)))


def syllables(seed: int) -> np.ndarray:
    """Two words of three symbols for the two attributes."""
    words = np.random.default_rng(seed).integers(0, 6, (2, 8, 3))
    return np.concatenate([words[0][GRID[:, 0]], words[1][GRID[:, 1]]], 1)


def slow_boundaries(said: list[list[int]], threshold: float) -> list[set[int]]:
    """The definition, part by part."""
    parts: Counter[tuple[int, ...]] = Counter()
    follows: dict[tuple[int, ...], Counter[int]] = {}
    for message in said:
        for i, j in product(range(len(message)), repeat=2):
            if i < j:
                part = tuple(message[i:j])
                parts[part] += 1
                follows.setdefault(part, Counter())[message[j]] += 1

    def h(part: tuple[int, ...]) -> float:
        n = np.array(list(follows[part].values()))
        return float(-(n / n.sum() * np.log2(n / n.sum())).sum())

    return [
        {
            j
            for i, j in product(range(len(m)), repeat=2)
            if j - i >= 2 and h(tuple(m[i:j])) - h(tuple(m[i : j - 1])) > threshold + 1e-12
        }
        for m in said
    ]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_boundaries_stand_where_the_definition_puts_them(threshold: float) -> None:
    rng = np.random.default_rng(0)
    said = [list(rng.integers(0, 4, n)) for n in rng.integers(1, 8, 60)]
    found = language.harris_articulation(said, threshold=threshold)
    assert [set(np.flatnonzero(row)) for row in found.boundaries] == slow_boundaries(said, threshold)


def test_words_of_three_symbols_are_found_and_fewer_than_at_random() -> None:
    found = language.harris_articulation(syllables(0), GRID)
    assert found.boundaries[:, 3].mean() > 0.8
    assert found.boundaries.mean(0).argmax() == 3
    assert found.vocabulary < 0.5 * found.random_vocabulary
    assert found.w_topsim > found.random_topsim + 0.2
    assert found.c_topsim == pytest.approx(language.topographic_similarity(GRID, syllables(0)))


def test_segments_put_together_are_the_message() -> None:
    said = articulation.as_messages([[1, 2, 3], [1, 2], [4, 4, 4, 4]])
    boundaries = np.zeros(said.shape, bool)
    boundaries[0, 1] = boundaries[2, 2] = boundaries[2, 3] = True
    segments = articulation._segments(said, boundaries)
    assert (segments >= 0).sum(1).tolist() == [2, 1, 3]
    assert segments[2, 1] == segments[2, 2]  # twice the segment 4
    assert len(np.unique(segments[segments >= 0])) == 5  # 1, 2 3, 1 2, 4 4, 4


def test_random_boundaries_are_as_many_and_never_twice_at_one_place() -> None:
    """A reference draws them with replacement, and so has fewer."""
    rng = np.random.default_rng(0)
    boundaries = rng.random((500, 8)) < 0.6
    size = rng.integers(2, 9, 500)
    place = np.arange(8)
    boundaries &= (place >= 1) & (place < size[:, None])
    drawn = articulation._at_random(boundaries, size, rng)
    assert drawn.sum(1).tolist() == boundaries.sum(1).tolist()
    assert not drawn[:, 0].any()
    assert not (drawn & (place >= size[:, None])).any()


def test_symbols_without_order_have_conditional_entropies_of_their_own() -> None:
    found = language.harris_articulation(np.random.default_rng(0).integers(0, 2, (4000, 4)))
    assert found.conditional_entropies == pytest.approx([1.0] * 4, abs=0.01)
    cycle = language.harris_articulation((np.arange(4)[:, None] + np.arange(6)) % 4)
    assert cycle.conditional_entropies[1:] == pytest.approx([0.0] * 5, abs=1e-9)
    assert cycle.boundaries_per_message == 0.0


@pytest.mark.parametrize("messages", [[[3]] * 4, np.full((4, 2), -1), [[5, 5, 5]] * 4, [[1, 2]]])
def test_messages_without_an_inside_or_variety_are_one_segment(messages: object) -> None:
    found = language.harris_articulation(messages, np.arange(np.shape(messages)[0]))  # type: ignore[arg-type]
    assert found.boundaries_per_message == 0.0
    assert found.w_topsim == found.c_topsim == 0.0


def test_a_threshold_that_is_no_number_is_said() -> None:
    with pytest.raises(UserError, match="threshold is nan"):
        language.harris_articulation([[1, 2]], threshold=float("nan"))
