"""Words whose frequencies and lengths are given."""

from __future__ import annotations

import numpy as np
import pytest

import popcomm.language as language


def said_as_often(counts: list[int], words: list[list[int]]) -> list[list[int]]:
    return [word for word, count in zip(words, counts, strict=True) for _ in range(count)]


def test_two_equally_common_messages_have_one_bit() -> None:
    assert language.message_entropy([[1, 2], [1, 2], [3, 4], [3, 4]]) == 1.0
    assert language.message_entropy([[1, 0, 2], [1, 0, 3]], end_symbol=0) == 0.0
    assert language.message_entropy([[5]] * 4) == 0.0


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.6])
def test_the_exponent_that_made_the_words_is_found(exponent: float) -> None:
    p = np.arange(1, 51.0) ** -exponent
    words = np.repeat(np.arange(50), np.round(200_000 * p / p.sum()).astype(int))
    found = language.zipf_exponent(words)
    assert found == pytest.approx(exponent, abs=0.01)
    assert found.r2 > 0.99
    assert found.words == 50


def test_equally_common_words_have_no_slope_but_that_of_chance() -> None:
    assert language.zipf_exponent(np.repeat(np.arange(20), 5)) == 0.0
    drawn = language.zipf_exponent(np.random.default_rng(0).integers(0, 500, 3000))
    assert drawn == pytest.approx(drawn.chance, rel=0.1)
    assert drawn > 0.2  # which is no law
    one = language.zipf_exponent([[3, 3]] * 10)
    assert (one, one.r2) == (0.0, 0.0)
    assert "one word only" in one.note


def test_frequent_words_are_short_where_the_law_holds() -> None:
    words = [[1], [2], [1, 2], [2, 1], [1, 1, 1], [2, 2, 2], [1, 2, 1, 2], [2, 1, 2, 1]]
    told = language.law_of_abbreviation(said_as_often([60, 50, 20, 18, 6, 5, 2, 1], words))
    assert told < -0.95
    assert told.p_value <= 0.002
    turned = language.law_of_abbreviation(said_as_often([1, 2, 5, 6, 18, 20, 50, 60], words))
    assert turned > 0.95
    assert turned.p_value > 0.99


def test_a_words_length_is_that_of_its_message_and_not_of_the_corpus() -> None:
    """One reference takes the size of the corpus for the length of a word, which makes all of them the same."""
    words = said_as_often([4, 2], [[1], [1, 2, 3]])
    assert language.law_of_abbreviation(words) == pytest.approx(-1.0)
    junk = [[*word, 0, 7, 7, 7][:5] for word in words]
    assert language.law_of_abbreviation(junk, end_symbol=0) == pytest.approx(-1.0)


def test_the_law_is_found_by_chance_as_often_as_the_level_says() -> None:
    """200 languages: 10 are expected, and more than 20 come once in a thousand."""
    rng, found = np.random.default_rng(0), 0
    for seed in range(200):
        words = [list(rng.integers(0, 9, length)) for length in rng.integers(1, 6, 25)]
        corpus = said_as_often(list(rng.integers(1, 20, 25)), words)
        found += language.law_of_abbreviation(corpus, shuffles=39, seed=seed).p_value <= 0.05
    assert found <= 20


@pytest.mark.parametrize(
    ("words", "note"), [([[1, 2]] * 3 + [[2, 2]], "as long"), ([[1], [1, 2]], "as common"), ([[4]], "as common")]
)
def test_where_all_words_are_alike_there_is_no_law(words: list[list[int]], note: str) -> None:
    told = language.law_of_abbreviation(words)
    assert (told, told.p_value) == (0.0, 1.0)
    assert note in told.note


def test_what_went_before_tells_the_next_symbol_of_a_cycle() -> None:
    cycle = (np.arange(4)[:, None] + np.arange(9)) % 4
    assert language.ngram_entropies(cycle, 3) == pytest.approx([2.0, 0.0, 0.0], abs=1e-2)
    two = np.random.default_rng(0).integers(0, 2, (4000, 5))
    assert language.ngram_entropies(two, 3) == pytest.approx([1.0, 1.0, 1.0], abs=0.01)
    assert language.ngram_entropies([[1], [2]], 3).tolist() == [1.0, 0.0, 0.0]
    assert language.ngram_entropies(np.full((3, 2), -1), 2).tolist() == [0.0, 0.0]
