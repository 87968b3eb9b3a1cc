"""Packed words: bits in and out, the gate, and the numbering of all words of a gate."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from popcomm.channels.words import codes
from popcomm.channels.words.codes import pack, passes, popcount, rank, uniform_words, unpack, unrank
from popcomm.errors import UserError
from popcomm.theory.gate import word_count

# Small enough to list: (bits, min_on, max_on).
SMALL = [(1, 1, 1), (5, 2, 3), (8, 1, 8), (9, 4, 4), (12, 1, 7)]


def strings(bits: int) -> np.ndarray:
    """All bit strings, packed."""
    return np.arange(2**bits, dtype=np.int32)


@st.composite
def gates(draw: st.DrawFn) -> tuple[int, int, int]:
    bits = draw(st.integers(1, 64))
    min_on = draw(st.integers(1, bits))
    return bits, min_on, draw(st.integers(min_on, bits))


def test_the_gate_of_the_draft_has_41932956_words_and_passes_one_string_in_a_hundred() -> None:
    assert word_count(32, 7, 9) == 41_932_956
    share = Fraction(word_count(32, 7, 9), 2**32)
    assert float(share) == pytest.approx(0.00976, abs=5e-6)


def test_a_quarter_of_the_bits_on_passes_the_gate_of_the_draft_most_often() -> None:
    def rate(q: float) -> float:
        return float(stats.binom(32, q).pmf([7, 8, 9]).sum())

    shares = np.linspace(0.01, 0.99, 99)
    assert shares[np.argmax([rate(q) for q in shares])] == pytest.approx(0.25, abs=0.01)
    assert rate(0.25) == pytest.approx(0.459, abs=5e-4)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_bits_are_counted_as_python_counts_them(values: list[int]) -> None:
    for size in (4, 8):
        words = (np.array(values, np.uint64) & np.uint64(2 ** (8 * size) - 1)).astype(f"u{size}").view(f"i{size}")
        expected = [(value % 2 ** (8 * size)).bit_count() for value in values]
        assert popcount(words).tolist() == expected
        assert popcount(torch.from_numpy(words)).tolist() == expected


@pytest.mark.parametrize(("bits", "min_on", "max_on"), SMALL)
def test_numpy_and_torch_let_the_same_strings_pass(bits: int, min_on: int, max_on: int) -> None:
    words = strings(bits)
    expected = [min_on <= int(word).bit_count() <= max_on for word in words]
    assert passes(words, min_on, max_on).tolist() == expected
    assert passes(torch.from_numpy(words), min_on, max_on).tolist() == expected


@given(st.integers(1, 64), st.integers(0, 2**64 - 1))
def test_packing_undoes_unpacking_and_bit_i_is_worth_two_to_the_i(n: int, value: int) -> None:
    bits = np.array([[(value >> i) & 1 for i in range(n)]])
    word = pack(bits)
    assert word.dtype == (np.int32 if n <= 32 else np.int64)
    assert int(word[0]) % 2 ** (8 * word.itemsize) == value % 2**n
    assert unpack(word, n).tolist() == bits.tolist()
    packed = pack(torch.from_numpy(bits))
    assert packed.tolist() == word.tolist()
    assert unpack(packed, n).tolist() == bits.tolist()


def test_packing_on_an_accelerator_is_that_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = torch.rand(50, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    here = {n: pack(bits[:, :n]) for n in (1, 31, 32, 33, 64)}
    back = {n: unpack(words, n) for n, words in here.items()}
    # A device that is no CPU takes torch's own operations: these run anywhere.
    monkeypatch.setattr(torch.Tensor, "device", _Elsewhere())
    for n, words in here.items():
        assert torch.equal(pack(bits[:, :n]), words)
        assert torch.equal(unpack(words, n), back[n])


class _Elsewhere:
    """A tensor's device that says it is none, and still takes tensors made on it."""

    def __get__(self, tensor: torch.Tensor, owner: type) -> torch.device:
        return _Named("cpu")  # type: ignore[return-value]


class _Named(str):
    type = "elsewhere"


def test_a_single_word_keeps_its_shape() -> None:
    word = np.array(0b10110, np.int32)
    assert unpack(word, 6).tolist() == [0, 1, 1, 0, 1, 0]
    assert pack(unpack(word, 6)).shape == ()
    assert unpack(torch.tensor(0b10110, dtype=torch.int32), 6).tolist() == [0, 1, 1, 0, 1, 0]


# ---- ranks ----


@pytest.mark.parametrize("gate", SMALL)
def test_ranks_number_all_words_by_on_bits_and_then_by_value(gate: tuple[int, int, int]) -> None:
    words = [int(w) for w in strings(gate[0]) if gate[1] <= int(w).bit_count() <= gate[2]]
    ordered = np.array(sorted(words, key=lambda w: (w.bit_count(), w)), np.int32)
    numbers = np.arange(word_count(*gate))
    assert unrank(numbers, *gate).tolist() == ordered.tolist()
    assert rank(ordered, *gate).tolist() == numbers.tolist()


@settings(max_examples=60, deadline=None)
@given(gates(), st.data())
def test_unranking_gives_words_and_ranking_gives_the_number_back(
    gate: tuple[int, int, int], data: st.DataObject
) -> None:
    size = word_count(*gate)
    drawn = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8))
    numbers = np.array([*drawn, 0, size - 1], np.uint64)
    words = unrank(numbers, *gate)
    assert passes(words, *gate[1:]).all()
    assert rank(words, *gate).tolist() == numbers.tolist()


def test_numbers_of_words_keep_their_shape_and_may_be_more_than_a_chunk() -> None:
    numbers = np.arange(codes.CHUNK + 3)
    words = unrank(numbers.reshape(1, -1), 32, 7, 9)
    assert words.shape == (1, len(numbers))
    assert (rank(words, 32, 7, 9) == numbers).all()


@pytest.mark.parametrize("word", [0, 0b111, 0b1, 0b110000])
def test_what_is_no_word_has_no_rank(word: int) -> None:
    with pytest.raises(UserError, match=f"{word} is no word of 5 bits with 2 to 2 of them on"):
        rank(np.array([0b11, word], np.int32), 5, 2, 2)


@pytest.mark.parametrize("number", [-1, 10])
def test_what_is_no_rank_is_refused(number: int) -> None:
    with pytest.raises(UserError, match=f"{number} is no number of a word; there are 10"):
        unrank(np.array([0, number]), 5, 2, 2)


# ---- uniform words ----


# The second and third are drawn by r1 & r2, the others by rank.
@pytest.mark.parametrize("gate", [(6, 3, 5), (8, 1, 4), (10, 2, 3), (9, 4, 6), (5, 5, 5)])
def test_random_words_are_uniform(gate: tuple[int, int, int]) -> None:
    size = word_count(*gate)
    numbers = rank(uniform_words(np.random.default_rng(0), 100 * size, *gate), *gate)
    counts = np.bincount(numbers.astype(np.int64), minlength=size)
    # 4.5 standard deviations of a chi-square with size - 1 degrees of freedom.
    assert ((counts - 100) ** 2 / 100).sum() < size - 1 + 4.5 * math.sqrt(2 * (size - 1) + 1e-9) + 1e-9


@pytest.mark.parametrize("gate", [(32, 7, 9), (64, 28, 36), (48, 10, 14)])
def test_random_words_of_wide_gates_have_uniform_ranks(gate: tuple[int, int, int]) -> None:
    count = 20_000
    words = uniform_words(np.random.default_rng(1), count, *gate)
    assert words.shape == (count,)
    assert words.dtype == (np.int32 if gate[0] <= 32 else np.int64)
    place = rank(words, *gate) / word_count(*gate)
    assert stats.kstest(place, "uniform").pvalue > 6e-5  # four standard deviations


@pytest.mark.parametrize(("gate", "by_rank"), [((32, 7, 9), False), ((64, 15, 17), False), ((32, 14, 18), True)])
def test_words_are_only_unranked_where_few_sparse_strings_are_words(
    gate: tuple[int, int, int], by_rank: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(codes, "unrank", lambda numbers, *gate: asked.append(len(numbers)) or numbers)
    assert len(uniform_words(np.random.default_rng(0), 10, *gate)) == 10
    assert bool(asked) == by_rank


def test_no_words_are_drawn_where_none_are_wanted() -> None:
    assert uniform_words(np.random.default_rng(0), 0, 32, 7, 9).tolist() == []
